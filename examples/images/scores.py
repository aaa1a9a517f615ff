"""From the files of cells to tables of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .cell import ABLATIONS, TAU, WEIGHT

__all__ = [
    "LABELS",
    "Cells",
    "accuracies_of",
    "best_validation",
    "comparable",
    "likelihoods_of",
    "of_ablated_sets",
    "percent_correct",
]

Cells = Sequence[Mapping[str, Any]]
"""Results of `results.read_cells`."""

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
    "untrained": "untrained",
    "pixels": "pixels",
}
"""The paper's names of the objectives."""


def comparable(cells: Cells, objectives: Sequence[str]) -> tuple[list[Mapping[str, Any]], dict[str, list[str]]]:
    """Selects cells whose z-scores, ranks and means over seeds can be compared.

    Only the paper's tau and weight, and of each image set only the seeds that all objectives have there. Such a seed is kept if it has
    every combination of the objectives and batch sizes that any set has.

    Args:
        cells: The cells.
        objectives: Names of objectives; those without any cell are ignored.

    Returns:
        The cells of the complete seeds, in the order of sets, objectives, batch sizes and seeds; and the cells that other seeds lack, by
        the names of set and seed.
    """
    order = {name: place for place, name in enumerate(objectives)}
    some = [
        one for one in cells if one["cell"]["objective"] in order and (one["cell"]["tau"], one["cell"]["weight"]) == (TAU, WEIGHT)
    ]
    names, sizes = {_run_of(one)[0] for one in some}, {_run_of(one)[1] for one in some}
    runs = [(name, size) for name in objectives if name in names for size in sorted(sizes)]
    kept: list[Mapping[str, Any]] = []
    missing = {}
    for data in dict.fromkeys(one["cell"]["data"] for one in some):
        found = {(*_run_of(one), one["cell"]["seed"]): one for one in some if one["cell"]["data"] == data}
        by_objective: dict[str, set[int]] = {}
        for name, _, seed in found:
            by_objective.setdefault(name, set()).add(seed)
        seeds = set.intersection(*by_objective.values()) or set.union(*by_objective.values())
        complete = []
        for seed in sorted(seeds):
            absent = [f"{LABELS[name]} B = {size}" for name, size in runs if (name, size, seed) not in found]
            if absent:
                missing[f"{data} seed {seed}"] = absent
            else:
                complete.append(seed)
        kept += [found[(*run, seed)] for run in runs for seed in complete]
    return kept, missing


def _run_of(one: Mapping[str, Any]) -> tuple[str, int]:
    return one["cell"]["objective"], one["cell"]["batch_size"]


def of_ablated_sets(cells: Cells) -> list[Mapping[str, Any]]:
    """The cells of the image sets that have an ablation."""
    names = {one["cell"]["data"] for one in cells if one["cell"]["objective"] in ABLATIONS}
    return [one for one in cells if one["cell"]["data"] in names]


def accuracies_of(cells: Cells) -> pd.DataFrame:
    """A row for each cell, embedding and classifier; see `statistics` for the columns. There is also a column `embedding`."""
    rows = []
    for one in cells:
        for embedding, by_classifier in one["accuracy"].items():
            for classifier, accuracy in by_classifier.items():
                rows.append((*_key(one["cell"]), embedding, f"{classifier} {embedding}", accuracy))
    return pd.DataFrame(rows, columns=["data", "model", "batch_size", "seed", "embedding", "evaluation", "accuracy"])


def likelihoods_of(cells: Cells) -> pd.DataFrame:
    """A row for each cell with a decoder: log p(x|z) of test images, nats per image, with z the `mean` and `drawn`."""
    rows = [
        (*_key(one["cell"]), one["log_likelihood"]["mean"], one["log_likelihood"]["drawn"])
        for one in cells
        if one["log_likelihood"]
    ]
    return pd.DataFrame(rows, columns=["data", "model", "batch_size", "seed", "mean", "drawn"])


def best_validation(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """The validation of a cell with the lowest loss, whose weights are evaluated."""
    found: Mapping[str, Any] = next(found for found in one["validation"] if found["step"] == one["best_step"])
    return found


def percent_correct(one: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy of a cell in percent, averaged over classifiers, by embedding."""
    return {kind: 100 * sum(of.values()) / len(of) for kind, of in one["accuracy"].items()}


def _key(cell: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return cell["data"], LABELS[cell["objective"]], cell["batch_size"], cell["seed"]
