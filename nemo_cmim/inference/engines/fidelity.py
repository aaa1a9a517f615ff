"""How close the vectors of an engine are to those of PyTorch. N molecules."""

from __future__ import annotations

import importlib.resources
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Fidelity", "compare", "molecules", "ridge_rmse"]

_FOLDS = 5


class Fidelity(NamedTuple):
    """Differences between vectors of two engines.

    Attributes:
        smallest_cosine: Smallest cosine similarity between both vectors of a molecule.
        mean_cosine: Mean over molecules.
        largest_difference: Largest absolute difference between two numbers.
    """

    smallest_cosine: float
    mean_cosine: float
    largest_difference: float


def compare(found: ArrayLike, expected: ArrayLike) -> Fidelity:
    """Compares vectors [N, width]; a vector that is not finite gives NaN, which is below any limit."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return Fidelity(float(cosine.min()), float(cosine.mean()), float(np.abs(a - b).max()))


def molecules() -> list[str]:
    """SMILES on which engines are compared: real molecules of all lengths."""
    text = (importlib.resources.files(__package__) / "molecules.smi").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def ridge_rmse(vectors: NDArray[np.float32], values: ArrayLike) -> float:
    """Root-mean-square error of ridge regression from vectors [N, width], five-fold cross-validated, in the unit of the N values."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
    predicted = cross_val_predict(ridge, vectors.astype(np.float64), values, cv=KFold(_FOLDS, shuffle=True, random_state=0))
    return float(np.sqrt(np.mean((predicted - np.asarray(values)) ** 2)))
