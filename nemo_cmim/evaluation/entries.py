"""Entries of a comparison, such as trained objectives and their controls, in one long table of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..downstream import RegressionData
from .blocks import measure_all
from .decoding import MEASURES, decode_all
from .features import FeatureSet
from .measure import Protocol, rmse_of_runs

__all__ = ["Entry", "measure_entries"]


@dataclass(frozen=True)
class Entry:
    """One run of one row group of a comparison.

    Attributes:
        objective: Name of the row group: an objective, another setting, or a baseline.
        seed: Seed of the training run.
        features: Sets of features by kind of embedding, each under a name that no other entry uses.
        decoded: Shipped name or path of the model that decodes molecules; empty for none.
    """

    objective: str
    seed: int
    features: Mapping[str, FeatureSet]
    decoded: str = ""


def measure_entries(
    entries: Sequence[Entry],
    sets: Sequence[RegressionData],
    protocol: Protocol,
    smiles: Sequence[str],
    folder: Path,
    *,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Measures property prediction and decoding of each entry.

    Args:
        entries: The entries.
        sets: Data sets of the regression.
        protocol: Seeds, heads and one split.
        smiles: Molecules to decode.
        folder: Folder of the kept blocks, see `blocks.measure_all`.
        jobs: Number of blocks measured at the same time.
        say: Called with a line of text after each block.

    Returns:
        `objective, seed, kind, measure, value`. For the measure "DATA HEAD", the value is the mean RMSE over the seeds of the protocol.
        The measures of `decoding.MEASURES` have an empty kind. A model without decoder has no rows for them.
    """
    features = [one for entry in entries for one in entry.features.values()]
    predictions = measure_all(features, sets, protocol, folder, jobs=jobs, say=say)
    errors = rmse_of_runs(predictions).groupby(["features", "data", "head"])["rmse"].mean().to_dict()
    models = {f"{entry.objective} {entry.seed}": entry.decoded for entry in entries if entry.decoded}
    decoded = decode_all(models, smiles, folder).set_index("model")
    rows: list[dict[str, Any]] = []
    for entry in entries:
        key = {"objective": entry.objective, "seed": entry.seed}
        if entry.decoded:
            fractions = decoded.loc[f"{entry.objective} {entry.seed}", list(MEASURES)].dropna()
            rows += [{**key, "kind": "", "measure": name, "value": value} for name, value in fractions.items()]
        for data in sets:
            for kind, one in entry.features.items():
                for head in dict.fromkeys(protocol.heads):
                    value = errors[one.name, data.name, head]
                    rows.append({**key, "kind": kind, "measure": f"{data.name} {head}", "value": value})
    return pd.DataFrame(rows)
