"""From the files of cells to tables of scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from .cell import ABLATIONS, MAIN

__all__ = ["LABELS", "accuracies_of", "likelihoods_of", "model_label", "of_models", "of_shared_seeds"]

LABELS = {
    "cmim": "cMIM",
    "mim": "MIM",
    "vae": "VAE",
    "ae": "AE",
    "infonce": "InfoNCE",
    "cmim_sum": "cMIM-Σ",
    "infonce_x": "InfoNCE-X",
    "cae": "cAE",
    "cvae": "cVAE",
}
"""The paper's names of the objectives."""

_ORDER = {LABELS[name]: place for place, name in enumerate((*MAIN, *ABLATIONS))}


def model_label(cell: Mapping[str, Any]) -> str:
    """Name of the objective, with tau and the contrastive weight where they are not the paper's 0.1 and 1."""
    label = LABELS[cell["objective"]]
    if cell["tau"] != 0.1:
        label += f" tau={cell['tau']:g}"
    return label + (f" weight={cell['weight']:g}" if cell["weight"] != 1.0 else "")


def accuracies_of(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each cell, embedding and classifier; see `statistics` for the columns. `embedding` and `classifier` stand apart as well."""
    rows = []
    for one in cells:
        cell = one["cell"]
        for embedding, by_classifier in one["accuracy"].items():
            for classifier, accuracy in by_classifier.items():
                rows.append((*_key(cell), embedding, classifier, f"{classifier} {embedding}", accuracy))
    columns = ["data", "model", "batch_size", "seed", "embedding", "classifier", "evaluation", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def likelihoods_of(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each cell with a decoder: log p(x|z) of test images, nats per image, with z the `mean` and `drawn`."""
    rows = [(*_key(one["cell"]), *one["log_likelihood"].values()) for one in cells if one["log_likelihood"]]
    return pd.DataFrame(rows, columns=["data", "model", "batch_size", "seed", "mean", "drawn"])


def of_models(scores: pd.DataFrame, models: Iterable[str]) -> pd.DataFrame:
    """The rows of these objectives at tau 0.1 and weight 1, in the order of the paper."""
    wanted = [LABELS[name] for name in models]
    found = scores[scores["model"].isin(wanted)]
    return found.sort_values(
        ["model", "batch_size"], key=lambda column: column.map(_ORDER) if column.name == "model" else column, kind="stable"
    )


def of_shared_seeds(cells: Sequence[Mapping[str, Any]], objectives: Iterable[str]) -> list[Mapping[str, Any]]:
    """The cells of these objectives whose seeds all of them have, so that all are means of equally many runs; tau 0.1 and weight 1 only."""
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in objectives}
    for one in cells:
        if one["cell"]["objective"] in found and model_label(one["cell"]) in LABELS.values():
            found[one["cell"]["objective"]].append(one)
    seeds = [{one["cell"]["seed"] for one in some} for some in found.values() if some]
    shared = set.intersection(*seeds) if seeds else set()
    return [one for some in found.values() for one in some if one["cell"]["seed"] in shared]


def _key(cell: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return cell["data"], model_label(cell), cell["batch_size"], cell["seed"]
