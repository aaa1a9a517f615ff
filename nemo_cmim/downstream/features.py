"""What maps SMILES to numbers: any function or scikit-learn transformer, and the built-in fingerprints and descriptors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ..errors import ConfigError, InvalidShapeError
from ..molecules import descriptors, morgan_fingerprints

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Featurizer", "Transformer", "builtin_featurizer", "compute_features", "descriptor_preparation", "rdkit_descriptors"]


class Transformer(Protocol):
    """A (fitted) scikit-learn transformer of SMILES."""

    def transform(self, X: Any) -> Any:
        """Array [N, D] of N SMILES."""


Featurizer = Callable[[Sequence[str]], Any] | Transformer


def rdkit_descriptors(smiles: Sequence[str]) -> NDArray[np.float32]:
    """All RDKit 2D descriptors, float32 [N, D], NaN where RDKit has no value: `evaluate` prepares them in each fold."""
    return descriptors(smiles)


def descriptor_preparation() -> Pipeline:
    """Makes descriptors usable, from training rows alone.

    NaN becomes the median, constant columns go, the rest is standardised and clipped at 5 standard deviations (some
    descriptors, such as `Ipc`, span many orders of magnitude).
    """
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -5.0, "a_max": 5.0})
    return make_pipeline(SimpleImputer(strategy="median"), VarianceThreshold(), StandardScaler(), clip)


def builtin_featurizer(name: str) -> Featurizer:
    """The featurizer called `name`: `rdkit`, or `morgan` and a number of bits, as in `morgan2048` (ECFP4).

    Raises:
        ConfigError: Another name.
    """
    if name == "rdkit":
        return rdkit_descriptors
    match = re.fullmatch(r"morgan([1-9]\d{0,5})", name)
    if match is None:
        raise ConfigError(f"Unknown features {name!r}. Built in: rdkit, and morgan512, morgan2048 or any other number of bits.")
    return partial(morgan_fingerprints, bits=int(match[1]))


def compute_features(name: str, featurizer: Featurizer, smiles: Sequence[str]) -> NDArray[np.float64]:
    """Features of N molecules, float64 [N, D]; NaN only in those of `rdkit_descriptors`.

    Raises:
        InvalidShapeError: Not one row of numbers for each molecule, or a value that is NaN or infinite.
    """
    raw = featurizer.transform(smiles) if hasattr(featurizer, "transform") else featurizer(smiles)
    values = np.asarray(raw, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(smiles) or values.shape[1] == 0:
        raise InvalidShapeError(f"Features {name!r} must be an array of shape [{len(smiles)}, D], found {list(values.shape)}.")
    bad = np.isinf(values) if featurizer is rdkit_descriptors else ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InvalidShapeError(
            f"Features {name!r} hold {int(bad.sum())} values that are NaN or infinite, the first in column {column} of "
            f"molecule {row} ({smiles[row]!r}). Leave out the molecules that have no features, or impute before."
        )
    return values
