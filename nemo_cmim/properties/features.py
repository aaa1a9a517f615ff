"""Features of molecules: any function or scikit-learn transformer, and the built-in fingerprints and descriptors."""

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
    """All RDKit 2D descriptors, float32 [N, D], NaN where RDKit has no value. `evaluate` prepares them in each fold."""
    return descriptors(smiles)


def descriptor_preparation() -> Pipeline:
    """Preprocessing of descriptors, to be fitted on training rows only.

    NaN is replaced by the column's median and constant columns are removed. The other columns are standardised and clipped at 5
    standard deviations, because some descriptors, such as `Ipc`, span many orders of magnitude.
    """
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -5.0, "a_max": 5.0})
    return make_pipeline(SimpleImputer(strategy="median"), VarianceThreshold(), StandardScaler(), clip)


def builtin_featurizer(name: str) -> Featurizer:
    """A built-in featurizer: `rdkit`, or `morgan` and a number of bits, such as `morgan2048` (ECFP4).

    Raises:
        ConfigError: If the name is unknown.
    """
    if name == "rdkit":
        return rdkit_descriptors
    match = re.fullmatch(r"morgan([1-9]\d{0,5})", name)
    if match is None:
        raise ConfigError(f"Unknown features {name!r}. Choose rdkit, or morgan and a number of bits, such as morgan2048.")
    return partial(morgan_fingerprints, bits=int(match[1]))


def compute_features(name: str, featurizer: Featurizer, smiles: Sequence[str]) -> NDArray[np.float64]:
    """Features of N molecules, float64 [N, D]. Only those of `rdkit_descriptors` may be NaN.

    Raises:
        InvalidShapeError: If the features are not one row of numbers for each molecule, or if a value is NaN or infinite.
    """
    raw = featurizer.transform(smiles) if hasattr(featurizer, "transform") else featurizer(smiles)
    values = np.asarray(raw, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(smiles) or values.shape[1] == 0:
        raise InvalidShapeError(f"Features {name!r} must be an array of shape [{len(smiles)}, D], found {list(values.shape)}.")
    bad = np.isinf(values) if featurizer is rdkit_descriptors else ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InvalidShapeError(
            f"Features {name!r} have {int(bad.sum())} values that are NaN or infinite, the first in column {column} of "
            f"molecule {row} ({smiles[row]!r}). Leave out molecules without features, or impute the values."
        )
    return values
