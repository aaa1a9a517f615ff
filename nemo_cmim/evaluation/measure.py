"""Predictions of one set of features on one data set, under every split, seed and head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..downstream import RegressionData, Results, evaluate, named_heads, results_of
from .features import EACH_SEED, FeatureSet

__all__ = ["COLUMNS", "Protocol", "measure", "results_from", "rmse_of_runs"]

COLUMNS = ["data", "split", "features", "head", "seed", "fold", "row", "target", "prediction"]
_LARGEST_KERNEL = 10_000  # rows: 800 MB in float64


@dataclass(frozen=True)
class Protocol:
    """How features are evaluated; see `downstream.evaluate`.

    Attributes:
        seeds: One repetition each, of the split and of the head's random numbers.
        splits: "random" (cross-validation), "scaffold", or both.
        folds: Folds of the random split.
        heads: Names of the heads, see `downstream.named_heads`.
        mlp_steps: Training steps of the MLP.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    splits: tuple[str, ...] = ("random", "scaffold")
    folds: int = 5
    heads: tuple[str, ...] = ("svm", "mlp")
    mlp_steps: int = 2000


def measure(features: FeatureSet, data: RegressionData, protocol: Protocol) -> pd.DataFrame:
    """Every test prediction of one set of features on one data set, with the columns `COLUMNS`."""
    heads = named_heads(protocol.heads, protocol.mlp_steps, precompute_kernel=len(data) <= _LARGEST_KERNEL)
    is_redrawn = features.random_weights == EACH_SEED
    tables = []
    for seeds in [(seed,) for seed in protocol.seeds] if is_redrawn else [protocol.seeds]:
        computed = {features.name: features.featurizer(data.smiles, seeds[0])}
        for split in protocol.splits:
            found = evaluate(data, computed, heads, split=split, folds=protocol.folds, seeds=seeds, progress=False)
            tables.append(found.predictions.assign(data=data.name, split=split))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def rmse_of_runs(predictions: pd.DataFrame) -> pd.DataFrame:
    """RMSE of each run, pooled over its test rows: `data, split, features, head, seed, tested, rmse`, in the data's unit.

    Args:
        predictions: Rows as `measure` returns them.
    """
    squares = predictions.assign(square=np.square(predictions["prediction"] - predictions["target"]))
    runs = squares.groupby(["data", "split", "features", "head", "seed"], sort=False)["square"].agg(["size", "mean"]).reset_index()
    return runs.assign(tested=runs["size"], rmse=np.sqrt(runs["mean"])).drop(columns=["size", "mean"])


def results_from(predictions: pd.DataFrame, data: RegressionData, protocol: Protocol, split: str = "random") -> Results:
    """The predictions of one data set and split as `downstream.Results`, for its report.

    Args:
        predictions: Rows as `measure` returns them, for any number of sets of features.
        data: The data set.
        protocol: The protocol of the predictions.
        split: The split.
    """
    rows = predictions[(predictions["data"] == data.name) & (predictions["split"] == split)].drop(columns=["data", "split"])
    rows.insert(rows.columns.get_loc("target"), "smiles", [data.smiles[row] for row in rows["row"]])
    return results_of(data, rows.reset_index(drop=True), split=split, folds=protocol.folds, seeds=protocol.seeds)
