"""Embedding and decoding with trained models. Names are imported on first use: an engine without PyTorch starts without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedder import MoleculeEmbedder
    from .inputs import standardise
    from .model import CMIMModel
    from .shipped import embed, list_models, load

_HOME = {
    "CMIMModel": "model",
    "MoleculeEmbedder": "embedder",
    "embed": "shipped",
    "list_models": "shipped",
    "load": "shipped",
    "standardise": "inputs",
}

__all__ = ["CMIMModel", "MoleculeEmbedder", "embed", "list_models", "load", "standardise"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
