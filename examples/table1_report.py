"""Tables, tests of significance and the picture of table1.py. All take runs as `evaluation.rmse` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from nemo_cmim.downstream import markdown_table, mean_and_sd

__all__ = ["Contrast", "draw", "paired_tests", "shares_table", "table", "tests_table"]

HEADS = {"svm": "SVM", "mlp": "MLP"}
LEVEL = 0.05


class Contrast(NamedTuple):
    """Two rows whose errors are compared under each seed: a negative difference speaks for the first."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.first} - {self.second}"


def table(runs: pd.DataFrame) -> str:
    """Markdown: a line for each row of features, a column for each data set and head, mean ± standard deviation over seeds."""
    columns = list(dict.fromkeys(zip(runs["data"], runs["head"])))
    lines = []
    for features, of_row in runs.groupby("features", sort=False):
        values = [of_row.loc[(of_row["data"] == data) & (of_row["head"] == head), "rmse"] for data, head in columns]
        lines.append([str(features), *map(mean_and_sd, values)])
    return markdown_table(["features", *(f"{data} {HEADS[head]}" for data, head in columns)], lines)


def paired_tests(runs: pd.DataFrame, contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """Student's paired two-sided t-test of each contrast, data set and head, the pairs being the runs of one seed.

    A seed is a repetition of the split and of the head's own randomness (and of the weights, in a row of random weights). A model is
    one training run, and the molecules are the same under all seeds. So a small p says that a difference is not one of how
    the rows were split; it says nothing of another training run, or of other molecules.

    Returns:
        `contrast, data, head, seeds, difference, p, p_holm`: the mean of first minus second, in the data's unit, its p-value, and that
        after Holm's correction for the data sets and heads of its contrast. NaN where there is one seed only, or no spread.
    """
    wide = runs.pivot_table(index=["data", "head", "seed"], columns="features", values="rmse", sort=False)
    tables = []
    for contrast in contrasts:
        rows = []
        for (data, head), pairs in wide.groupby(["data", "head"], sort=False):
            first, second = pairs[contrast.first], pairs[contrast.second]
            is_spread = len(pairs) > 1 and np.ptp(first - second) > 0
            p = float(ttest_rel(first, second).pvalue) if is_spread else float("nan")
            rows.append((contrast.name, data, head, len(pairs), (first - second).mean(), p))
        found = pd.DataFrame(rows, columns=["contrast", "data", "head", "seeds", "difference", "p"])
        tables.append(found.assign(p_holm=_holm(found["p"].to_numpy())))
    return pd.concat(tables, ignore_index=True)


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction; NaN stays, and is not counted."""
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    worst = 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - place) * p[index]))
        corrected[index] = worst
    return corrected


def tests_table(tests: pd.DataFrame) -> str:
    """Markdown: a line for each contrast, difference and p; bold where the corrected p is below 0.05."""
    columns = list(dict.fromkeys(zip(tests["data"], tests["head"])))
    lines = [
        [str(name), *map(_tested, rows["difference"], rows["p"], rows["p_holm"])]
        for name, rows in tests.groupby("contrast", sort=False)
    ]
    return markdown_table(["difference", *(f"{data} {HEADS[head]}" for data, head in columns)], lines)


def _tested(difference: float, p: float, p_holm: float) -> str:
    text = f"{difference:+.3f}"
    if np.isnan(p):
        return text
    text += f" (p = {p:.3f})" if p >= 0.001 else f" (p = {p:.0e})"
    return f"**{text}**" if p_holm < LEVEL else text


def shares_table(decoded: pd.DataFrame) -> str:
    """Markdown of `model, molecules` and shares of 1 under other names; NaN: the model has no decoder."""
    lines = [
        [model, f"{count:,}", *("no decoder" if np.isnan(share) else f"{share:.1%}" for share in shares)]
        for model, count, *shares in decoded.itertuples(index=False)
    ]
    return markdown_table([str(name).replace("_", " ") for name in decoded.columns], lines)


def draw(runs: pd.DataFrame, path: Path) -> None:
    """A panel for each data set and head, a point for each run: filled for the random split, open for the scaffold split."""
    rows = list(dict.fromkeys(runs["features"]))[::-1]
    sets, heads = list(dict.fromkeys(runs["data"])), list(dict.fromkeys(runs["head"]))
    size = (2.5 + 3 * len(sets), 1 + len(heads) * (0.8 + 0.22 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(heads), len(sets), sharey=True, squeeze=False)
    for (data, head, split), points in runs.groupby(["data", "head", "split"], sort=False):
        panel = panels[heads.index(head)][sets.index(data)]
        is_random = split == "random"
        panel.plot(
            points["rmse"],
            [rows.index(name) + (0.15 if is_random else -0.15) for name in points["features"]],
            "o",
            color="C0" if is_random else "C1",
            fillstyle="full" if is_random else "none",
            markersize=4,
            alpha=0.7,
            label=f"{split} split",
        )
        panel.set(title=f"{data}, {HEADS[head]}", xlabel="RMSE")
        panel.set_yticks(range(len(rows)), rows)
        panel.grid(axis="y", alpha=0.3)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    FigureCanvasAgg(figure).print_png(str(path))
