"""What a property model predicts with: features and one head for each target.

Shape letters: N molecules, T targets, C classes of a target, D columns of features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline

from ..errors import ConfigError
from .feature_sets import FeatureSet
from .features import descriptor_preparation
from .named_heads import named_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FeaturePredictor", "Predictor", "Progress"]

Progress = Callable[[int, int], None]


class Predictor(Protocol):
    """Learns targets of valid molecules, which are given as canonical SMILES."""

    def fit(self, smiles: Sequence[str], targets_NT: NDArray[np.float64], progress: Progress | None = None) -> Predictor:
        """Learns from N molecules.

        Args:
            smiles: N canonical SMILES.
            targets_NT: Values, or for classification codes of classes from 0 to C - 1; NaN: missing.
            progress: Called with the number of steps done and of all steps.
        """

    def predict(self, smiles: Sequence[str]) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Predictions float64 [N, T] in the unit of `fit`; for classification T arrays of probabilities, float64 [N, C]."""


class FeaturePredictor:
    """Features, and one head for each target, which is fitted on the rows where the target is known.

    For regression, targets are standardised for the fit, so that a head does not depend on their unit.

    Args:
        features: The features.
        head: A name of `named_heads.HEADS`, or a scikit-learn estimator, which is cloned.
        task: "regression" or "classification".
        classes: For classification, the number of classes of each target.
        settings: Parameters of the head, see `named_heads.CANDIDATES`.
        seed: Seed of the head.
        device: Device of the head, where it has one.
    """

    def __init__(
        self,
        features: FeatureSet,
        head: Any = "svm",
        task: str = "regression",
        classes: Sequence[int] = (),
        settings: Mapping[str, Any] | None = None,
        seed: int | None = 0,
        device: str | None = None,
    ) -> None:
        self.features = features
        self.head = head
        self.task = task
        self.classes = tuple(classes)
        self.settings = dict(settings or {})
        self.seed = seed
        self.device = device

    def fit(self, smiles: Sequence[str], targets_NT: NDArray[np.float64], progress: Progress | None = None) -> FeaturePredictor:
        """See `Predictor.fit`. A target without any value is predicted as NaN."""
        x_ND = self.features(smiles)
        self.heads_: list[Any] = []  # None for a target without any value
        self.scales_: list[tuple[float, float]] = []
        for number, y_N in enumerate(targets_NT.T):
            known = ~np.isnan(y_N)
            centre, scale = _location(y_N[known]) if self.task == "regression" and known.any() else (0.0, 1.0)
            self.scales_.append((centre, scale))
            self.heads_.append(self._fitted(x_ND[known], (y_N[known] - centre) / scale) if known.any() else None)
            if progress:
                progress(number + 1, targets_NT.shape[1])
        return self

    def predict(self, smiles: Sequence[str]) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """See `Predictor.predict`."""
        x_ND = self.features(smiles)
        if self.task == "regression":
            missing = np.full(len(x_ND), np.nan)
            columns = [
                missing if head is None else head.predict(x_ND) * scale + centre
                for head, (centre, scale) in zip(self.heads_, self.scales_)
            ]
            return np.column_stack(columns).astype(np.float64)
        return [_probabilities(head, x_ND, count) for head, count in zip(self.heads_, self.classes)]

    def _fitted(self, x_ND: NDArray[np.float64], y_N: NDArray[np.float64]) -> Pipeline:
        if isinstance(self.head, str):
            head = named_head(self.head, self.task, x_ND, y_N, self.settings, self.seed, self.device)
        else:
            head = clone(self.head)
        if self.features.has_descriptors:
            head = make_pipeline(descriptor_preparation(), head)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # the number of steps is part of a head; the metrics show its quality
            return head.fit(x_ND, y_N if self.task == "regression" else y_N.astype(np.int64))


def _location(y_N: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation; 1 in place of a standard deviation of 0."""
    return float(y_N.mean()), float(y_N.std()) or 1.0


def _probabilities(head: Any, x_ND: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Probabilities of all classes, 0 for those that the head has not seen; NaN without a head."""
    if head is None:
        return np.full((len(x_ND), count), np.nan)
    if not hasattr(head, "predict_proba"):
        raise ConfigError(f"The head {head!r} has no predict_proba. Pass a classifier that predicts probabilities.")
    found = np.zeros((len(x_ND), count))
    found[:, head.classes_.astype(np.int64)] = head.predict_proba(x_ND)
    return found
