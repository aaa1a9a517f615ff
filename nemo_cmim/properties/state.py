"""What a property model has learnt: all that `predict` needs and a file keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..version import __version__
from .domain import Domain
from .feature_sets import FeatureSet
from .predictor import Predictor
from .targets import Targets
from .transforms import TargetTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["State", "data_card"]

_LIBRARIES = ("rdkit", "scikit-learn", "torch", "numpy")


@dataclass
class State:
    """The result of a fit on all rows.

    Attributes:
        targets: Names and classes of the targets, without rows.
        transform: Transform of the targets.
        predictor: The fitted predictor.
        features: The features; for a fine-tuned model those of its base, which the domain needs.
        fingerprints: Fingerprint of each embedding.
        columns: Name and number of columns of each kind of features.
        scores: Conformal scores of each target, ascending, see `intervals`.
        domain: The training molecules.
        metrics: See `PropertyModel.metrics_`.
        chosen: See `PropertyModel.chosen_`.
        card: Data summary and versions, see `data_card`.
    """

    targets: Targets
    transform: TargetTransform
    predictor: Predictor
    features: FeatureSet
    fingerprints: dict[str, str]
    columns: list[tuple[str, int]]
    scores: list[NDArray[np.float64]]
    domain: Domain
    metrics: pd.DataFrame
    chosen: dict[str, Any]
    card: dict[str, Any]


def data_card(targets: Targets, smiles: Sequence[str], left_out: int) -> dict[str, Any]:
    """Numbers of rows and molecules, a summary of each target, and versions of libraries."""
    summaries = {}
    for number, (name, values_N) in enumerate(zip(targets.names, targets.values_NT.T)):
        known = values_N[~np.isnan(values_N)]
        if targets.classes:
            counts = np.bincount(known.astype(np.int64), minlength=len(targets.classes[number]))
            summaries[name] = {"values": len(known), "classes": {str(c): int(n) for c, n in zip(targets.classes[number], counts)}}
        else:
            numbers = {"minimum": known.min(), "mean": known.mean(), "sd": known.std(), "maximum": known.max()}
            summaries[name] = {"values": len(known), **{key: float(value) for key, value in numbers.items()}}
    return {
        "rows": len(smiles),
        "molecules": len(set(smiles)),
        "left_out": left_out,
        "targets": summaries,
        "versions": {"nemo_cmim": __version__, **{name: version(name) for name in _LIBRARIES}},
    }
