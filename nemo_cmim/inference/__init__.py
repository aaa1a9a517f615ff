"""Embedding and decoding with trained models. Imports torch, RDKit and NumPy; scikit-learn and pyarrow only when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .inputs import standardise
from .model import CMIMModel
from .shipped import embed, list_models, load

if TYPE_CHECKING:
    from .embedder import MoleculeEmbedder

__all__ = ["CMIMModel", "MoleculeEmbedder", "embed", "list_models", "load", "standardise"]


def __getattr__(name: str) -> Any:
    if name == "MoleculeEmbedder":  # imports scikit-learn
        from .embedder import MoleculeEmbedder

        return MoleculeEmbedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
