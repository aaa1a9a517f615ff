"""Tables of cMIM with different temperatures and weights of the contrastive term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from nemo_cmim.markdown import markdown_table

from .cell import TAU, WEIGHT
from .measured_tables import NOTE, TESTED, references_of, with_p_value
from .scores import Cells, best_validation, percent_correct
from .statistics import paired_test

__all__ = ["temperature_tables"]

_MEASURED = {
    "mean": "accuracy, mean, %",
    "informative": "accuracy, informative, %",
    "log_p_x": r"log p(x\|z), nats",
    "log_p_k1": "log p_k1, nats",
}
_RUN = ["data", "batch_size"]


def temperature_tables(cells: Cells) -> list[str]:
    """cMIM with different tau and weights, and its differences from the paper's; empty if there are none.

    The settings of an image set and batch size are compared at the seeds that all of them have.
    """
    measured = [_measured(one) for one in cells if one["cell"]["objective"] == "cmim"]
    kept = []
    for _, some in pd.DataFrame(measured).groupby(_RUN) if measured else ():
        by_setting = some.groupby(["weight", "tau"])["seed"].agg(set)
        seeds = set.intersection(*by_setting)
        if seeds and set(by_setting.index) != {(WEIGHT, TAU)}:
            kept.append(some[some["seed"].isin(seeds)])
    if not kept:
        return []
    frame = pd.concat(kept)
    return [_values(frame, references_of(cells)), *_differences(frame)]


def _measured(one: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a cell, its accuracy in percent, averaged over classifiers, and its log-likelihoods."""
    return {
        **{name: one["cell"][name] for name in (*_RUN, "seed", "weight", "tau")},
        **percent_correct(one),
        "log_p_x": one["log_likelihood"]["mean"],
        "log_p_k1": best_validation(one)["log_p_k1"],
    }


def _values(frame: pd.DataFrame, references: Cells) -> str:
    rows = []
    for (data, size, weight, tau), some in frame.groupby([*_RUN, "weight", "tau"]):
        seeds = ", ".join(map(str, sorted(some["seed"])))
        rows.append((data, str(size), f"{tau:g}", f"{weight:g}", *_shown(some[list(_MEASURED)].mean()), seeds))
    for one in references:
        cell = one["cell"]
        if cell["seed"] in set(frame.loc[frame["data"] == cell["data"], "seed"]):
            rows.append((cell["data"], cell["objective"], "", "", *_shown(_of_reference(one)), str(cell["seed"])))
    caption = (
        "cMIM, averaged over the three classifiers and seeds. log p(x|z) is that of test images with z the mean of q(z|x) (pixels: that "
        "of the mean image), log p_k1 that of the validation images at the lowest validation loss. For the size of random differences, "
        f"see the ranges over seeds of the tables of accuracy. {NOTE}"
    )
    return caption + "\n\n" + markdown_table(("set", "B", "tau", "weight", *_MEASURED.values(), "seeds"), rows)


def _of_reference(one: Mapping[str, Any]) -> pd.Series[float]:
    """The pixels have one accuracy, which stands for both embeddings."""
    accuracy = percent_correct(one)
    if "pixels" in accuracy:
        return pd.Series({"mean": accuracy["pixels"], "informative": accuracy["pixels"], "log_p_x": one["mean_image"]})
    return pd.Series(accuracy | {"log_p_x": one["log_likelihood"]["mean"]})


def _shown(values: pd.Series[float]) -> list[str]:
    return ["" if pd.isna(values.get(name)) else f"{values[name]:.{3 if name == 'log_p_k1' else 1}f}" for name in _MEASURED]


def _differences(frame: pd.DataFrame) -> list[str]:
    """Each setting minus the paper's; empty if that is missing."""
    models = [f"tau {tau:g}, weight {weight:g}" for tau, weight in zip(frame["tau"], frame["weight"])]
    averages = (
        frame.assign(model=models, evaluation="all").groupby([*_RUN, "evaluation", "model"])[list(_MEASURED)].mean().reset_index()
    )
    paper, rows = f"tau {TAU:g}, weight {WEIGHT:g}", []
    for model in sorted(set(models) - {paper}):
        tests = [paired_test(averages, model, paper, name, unit=_RUN) for name in _MEASURED]
        if tests[0].n:
            rows.append((model, *(with_p_value(test) for test in tests)))
    if not rows:
        return []
    caption = (
        f"Differences from {paper}, the paper's: {TESTED}. A value is a pair of networks (image set and B), so the test says nothing about "
        "other sets."
    )
    return [caption + "\n\n" + markdown_table(("setting", *_MEASURED.values()), rows)]
