"""Embeddings as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..errors import CheckpointError
from ..steps import Steps, check_steps
from ..tables.progress import counting_bar
from .batching import Progress
from .embedding import EmbeddingModel
from .processes import process_count
from .removed import fingerprint_hint
from .shipped import embed, resolve

__all__ = ["MoleculeEmbedder"]


class MoleculeEmbedder(TransformerMixin, BaseEstimator):
    """Embeds SMILES: the first step of a scikit-learn pipeline. `fit` learns nothing, but remembers which embedding it was.

    Pickles and clones contain the settings, not the weights: a model given by name or path is loaded when it is used. If another model has
    taken its place since `fit`, also under the name of a shipped model, `transform` raises an error: what was fitted to the old vectors
    would make wrong predictions from the new ones. A model that is passed as an object is pickled with its weights.

    Args:
        model: A loaded model, the name of a shipped model, or a path; None: the default shipped model.
        kind: "informative" or "mean".
        on_invalid: "raise", or "nan" to return rows of NaN.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        n_jobs: Number of processes, which share the weights, as in scikit-learn; -1: one on each core. They take a few seconds to
            start. At most 1,024 molecules are always embedded in this process.
        verbose: 0, or larger to show a progress bar on stderr; a dict has options of `tqdm.tqdm`.
        device: For example "cpu"; None: a GPU if there is one, else the CPU.
        layers: See `CMIMModel.embed`.
        pooling: See `CMIMModel.embed`.
        precision: See `load`; None: "fp32".
        engine: See `load`.
        standardise: See `CMIMModel.embed`. Part of the pickle, so that a saved pipeline treats new molecules as those of `fit`.

    Attributes:
        fingerprint_: Fingerprint of the embedding, see `CMIMModel.fingerprint`.
        n_features_out_: Length of a vector.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | EmbeddingModel | None = None,
        kind: str = "informative",
        on_invalid: str = "raise",
        batch_size: int | None = None,
        device: str | None = None,
        layers: Sequence[int] | None = None,
        pooling: str = "mean",
        standardise: Steps = (),
        n_jobs: int | None = None,
        verbose: int | dict[str, Any] = 0,
        precision: str | None = None,
        engine: str | None = None,
    ) -> None:
        self.model = model
        self.kind = kind
        self.layers = layers
        self.pooling = pooling
        self.on_invalid = on_invalid
        self.batch_size = batch_size
        self.device = device
        self.standardise = standardise
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.precision = precision
        self.engine = engine

    def fit(self, X: Any, y: Any = None) -> MoleculeEmbedder:
        """Checks that the model can be loaded and supports the settings, and keeps its fingerprint. `X` and `y` are ignored."""
        check_steps(self.standardise)
        process_count(self.n_jobs)
        model = resolve(self.model, self.device, self.precision, self.engine)
        self.fingerprint_ = model.fingerprint(self.kind, self.layers, self.pooling)
        self.n_features_out_ = model.width(self.kind, self.layers, self.pooling)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Computes vectors of N SMILES or RDKit molecules, float32 [N, width]; see `CMIMModel.embed` for errors.

        `X` may also be a table with one column, as `ColumnTransformer` passes it.

        Raises:
            CheckpointError: If the embedding is not the one of `fit`.
        """
        check_is_fitted(self)
        model = resolve(self.model, self.device, self.precision, self.engine)
        self._check_fingerprint(model)
        with self._progress_bar() as progress:
            return embed(
                X,
                model,
                self.kind,
                layers=self.layers,
                pooling=self.pooling,
                on_invalid=self.on_invalid,
                batch_size=self.batch_size,
                standardise=self.standardise,
                n_jobs=process_count(self.n_jobs),
                progress=progress,
            )

    def _progress_bar(self) -> AbstractContextManager[Progress | None]:
        """Shows how many of the distinct molecules are done; None if there is nothing to show."""
        if not self.verbose:
            return nullcontext()
        options = self.verbose if isinstance(self.verbose, dict) else {}
        return counting_bar(**{"desc": "embed", "unit": " molecules", **options})

    def _check_fingerprint(self, model: EmbeddingModel) -> None:
        name = repr(model) if model.name is None else f"the model {model.name!r}"
        if not hasattr(self, "fingerprint_"):
            raise CheckpointError(
                f"This MoleculeEmbedder was fitted by an earlier version, which did not keep the fingerprint of {name}. Nobody can tell "
                "whether the model is still the same. Fit the pipeline again."
            )
        now = model.fingerprint(self.kind, self.layers, self.pooling)
        if now != self.fingerprint_:
            raise CheckpointError(
                f"The embedding of {name} has changed since this MoleculeEmbedder was fitted: its fingerprint was {self.fingerprint_[:12]} "
                f"and is now {now[:12]}. What was fitted to the old vectors does not apply to the new ones. Fit the pipeline again, or "
                f"restore the model file and the settings.{fingerprint_hint(self.fingerprint_)}"
            )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns, object [width]: `informative0`, `informative1`, ... or `mean0`, ..."""
        check_is_fitted(self)
        return np.array([f"{self.kind}{i}" for i in range(self.n_features_out_)], dtype=object)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(
            {"n_jobs": None, "verbose": 0, "precision": None, "engine": None, **state}
        )  # earlier versions had none

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
