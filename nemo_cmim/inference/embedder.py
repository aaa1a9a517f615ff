"""Embeddings as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .model import CMIMModel
from .shipped import resolve

__all__ = ["MoleculeEmbedder"]


class MoleculeEmbedder(TransformerMixin, BaseEstimator):
    """Embeds SMILES: the first step of a scikit-learn pipeline. `fit` learns nothing.

    Pickles and clones contain the settings, not the weights: a model given by name or path is loaded when it is used.

    Args:
        model: A loaded model, the name of a shipped model, or a path; None: the default shipped model.
        kind: "informative" or "mean".
        on_invalid: "raise", or "nan" to return rows of NaN.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        device: For example "cpu"; None: a GPU if there is one, else the CPU.
        layers: See `CMIMModel.embed`.
        pooling: See `CMIMModel.embed`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | CMIMModel | None = None,
        kind: str = "informative",
        on_invalid: str = "raise",
        batch_size: int | None = None,
        device: str | None = None,
        layers: Sequence[int] | None = None,
        pooling: str = "mean",
    ) -> None:
        self.model = model
        self.kind = kind
        self.layers = layers
        self.pooling = pooling
        self.on_invalid = on_invalid
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> MoleculeEmbedder:
        """Checks that the model can be loaded and supports the settings. `X` and `y` are ignored."""
        model = resolve(self.model, self.device)
        self.n_features_out_ = model.width(self.kind, self.layers, self.pooling)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Computes vectors of N SMILES or RDKit molecules, float32 [N, width]; see `CMIMModel.embed` for errors.

        `X` may also be a table with one column, as `ColumnTransformer` passes it.
        """
        check_is_fitted(self)
        model = resolve(self.model, self.device)
        return model.embed(
            _one_column(X),
            self.kind,
            layers=self.layers,
            pooling=self.pooling,
            on_invalid=self.on_invalid,
            batch_size=self.batch_size,
        )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns, object [width]: `informative0`, `informative1`, ... or `mean0`, ..."""
        check_is_fitted(self)
        return np.array([f"{self.kind}{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_out_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = False
        tags.requires_fit = True
        tags.no_validation = True
        return tags


def _one_column(X: Any) -> Any:
    """The column of an [N, 1] table or array; anything else unchanged."""
    if getattr(X, "ndim", 1) == 2 and X.shape[1] == 1:
        return X.iloc[:, 0] if hasattr(X, "iloc") else np.asarray(X)[:, 0]
    return X
