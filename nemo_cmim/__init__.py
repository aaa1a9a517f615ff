"""Molecular embeddings for property prediction with cMIM, and training of the models on NeMo and Megatron-Core.

Public names are imported on first use, so `import nemo_cmim` itself is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .errors import CheckpointError, ConfigError, DataError, InvalidShapeError, InvalidSmilesError, UnknownTokenError
    from .inference import CMIMModel, MoleculeEmbedder, embed, list_models, load, standardise
    from .models import CMIMNetwork
    from .properties import PropertyModel, load_property_model
    from .report.property_report import write_property_report
    from .tokenizers import SmilesTokenizer

_HOME = {
    "CMIMModel": "inference",
    "CMIMNetwork": "models",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "InvalidShapeError": "errors",
    "InvalidSmilesError": "errors",
    "MoleculeEmbedder": "inference",
    "PropertyModel": "properties",
    "SmilesTokenizer": "tokenizers",
    "UnknownTokenError": "errors",
    "embed": "inference",
    "list_models": "inference",
    "load": "inference",
    "load_property_model": "properties",
    "standardise": "inference",
    "write_property_report": "report.property_report",
}

_PARTS = ("distributed", "neighbors")

__all__ = [
    "CMIMModel",
    "CMIMNetwork",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "InvalidShapeError",
    "InvalidSmilesError",
    "MoleculeEmbedder",
    "PropertyModel",
    "SmilesTokenizer",
    "UnknownTokenError",
    "embed",
    "list_models",
    "load",
    "load_property_model",
    "standardise",
    "write_property_report",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
