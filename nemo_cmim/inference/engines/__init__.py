"""Engines: what computes vectors. PyTorch, or ONNX Runtime on graphs that `export` writes; only `export` imports torch."""

from __future__ import annotations

import os

from ...arguments import check_choice
from ...errors import ConfigError

__all__ = ["ENGINES", "INT8", "ONNX", "TORCH", "engine_of"]

TORCH, ONNX, INT8 = "torch", "onnx", "onnx-int8"
ENGINES = (TORCH, ONNX, INT8)
_VARIABLE = "NEMO_CMIM_ENGINE"


def engine_of(engine: str | None) -> str | None:
    """The engine that a caller chose; without a choice that of the environment variable `NEMO_CMIM_ENGINE`, None if it is not set.

    Raises:
        ConfigError: If there is no engine of this name.
    """
    if engine is not None:
        check_choice("engine", engine, ENGINES)
        return engine
    found = os.environ.get(_VARIABLE) or None
    if found not in (None, *ENGINES):
        raise ConfigError(f"The environment variable {_VARIABLE} is {found!r}. Set it to one of {', '.join(ENGINES)}, or unset it.")
    return found
