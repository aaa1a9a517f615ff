"""Sets of features that are evaluated: embeddings of a model, built-in fingerprints and descriptors, or vectors of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..downstream import Featurizer, builtin_featurizer
from ..files import atomic_write
from ..inference import CMIMModel
from ..inference.model_file import ModelFile
from ..inference.shipped import resolve
from ..models import CMIMNetwork

__all__ = [
    "EACH_SEED",
    "EmbeddingSpec",
    "FeatureSet",
    "embedding_kinds",
    "read_vectors",
    "with_random_weights",
    "write_vectors",
]

EACH_SEED: Final = "each seed"


class EmbeddingSpec(NamedTuple):
    """Which embedding of a model: the arguments of `CMIMModel.embed` that change the numbers."""

    kind: str = "informative"
    layers: tuple[int, ...] | None = None
    pooling: str = "mean"


@dataclass(frozen=True)
class FeatureSet:
    """Features under a name: built-in ones, vectors of a file, or embeddings of a model.

    Attributes:
        name: The name in tables.
        builtin: Name of a built-in featurizer, see `downstream.builtin_featurizer`. Empty for other features.
        vectors: Path of a file that `write_vectors` wrote, with vectors of all molecules. Empty for other features.
        model: Shipped name or path of the model, see `inference.load`. Empty for other features.
        embeddings: Embeddings of the model, concatenated in this order.
        random_weights: None uses the model's own weights. A number is the seed of random weights that replace them. `EACH_SEED` draws
            random weights for each seed of the protocol.
    """

    name: str
    builtin: str = ""
    vectors: str = ""
    model: str = ""
    embeddings: tuple[EmbeddingSpec, ...] = ()
    random_weights: int | Literal["each seed"] | None = None

    def featurizer(self, smiles: Sequence[str], seed: int) -> Featurizer:
        """A featurizer for these molecules under one seed of the protocol. Embeddings are computed here, once for all splits."""
        if self.builtin:
            return builtin_featurizer(self.builtin)
        if self.vectors:
            of_smiles = read_vectors(Path(self.vectors))
            return lambda smiles: np.stack([of_smiles[one] for one in smiles])
        model = resolve(self.model)
        if self.random_weights is not None:
            model = with_random_weights(model, seed if self.random_weights == EACH_SEED else self.random_weights)
        vectors = np.hstack([model.embed(smiles, **spec._asdict()) for spec in self.embeddings])
        return lambda _: vectors


def embedding_kinds(model: CMIMModel) -> tuple[str, ...]:
    """The kinds of embedding that a model has: one without decoder has only the posterior mean."""
    return ("mean", "informative") if model.config.network.decoder_layers else ("mean",)


def with_random_weights(model: CMIMModel, seed: int) -> CMIMModel:
    """A model with the same settings and vocabulary and with random initial weights: the control without training."""
    torch.manual_seed(seed)
    weights = CMIMNetwork(model.config.network).state_dict()
    return CMIMModel(ModelFile(model.config, model.tokenizer.vocabulary, weights), model.device)


def write_vectors(path: Path, smiles: Sequence[str], vectors_ND: NDArray[np.float64]) -> None:
    """Writes vectors of molecules, for `FeatureSet.vectors`. Equal vectors give equal bytes."""
    with atomic_write(path) as staging, staging.open("wb") as file:
        np.savez(file, smiles=np.array(smiles, dtype=np.str_), vectors=vectors_ND)


def read_vectors(path: Path) -> dict[str, NDArray[np.float64]]:
    """The vectors of a file that `write_vectors` wrote, [D] each, by SMILES."""
    with np.load(path) as file:
        return dict(zip(file["smiles"].tolist(), file["vectors"]))
