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
    """SMILES in, vectors out: the first step of a pipeline. Nothing is learned in `fit`.

    Pickles and clones carry the settings, not the weights: a model given by name or path is read again where it is needed.

    Args:
        model: A loaded model, a shipped name, or a path; None is the default shipped model.
        kind: "informative" or "mean".
        layers: As `CMIMModel.embed`.
        pooling: As `CMIMModel.embed`.
        on_invalid: "raise", or "nan" to keep NaN rows.
        batch_size: Most molecules in a batch; None chooses.
        device: Such as "cpu"; None takes a GPU if there is one.
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
        """Checks that the model can be read and has what is asked for. `X` [N] is not looked at."""
        model = resolve(self.model, self.device)
        self.n_features_out_ = model.width(self.kind, self.layers, self.pooling)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Vectors of N SMILES or RDKit molecules, float32 [N, width]; errors as `CMIMModel.embed`.

        `X` may also be a table of one column, as `ColumnTransformer` gives it.
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
        """`informative0`, `informative1`, ... or `mean0`, ...; object [width]."""
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
    """The column of an [N, 1] table or array; anything else as it is."""
    if getattr(X, "ndim", 1) == 2 and X.shape[1] == 1:
        return X.iloc[:, 0] if hasattr(X, "iloc") else np.asarray(X)[:, 0]
    return X
