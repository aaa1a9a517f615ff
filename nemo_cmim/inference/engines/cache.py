"""Engines of `.nemo` files, exported when they are used for the first time and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError
from ...files import sha256_of
from ...version import __version__
from .folder import is_engine_folder

if TYPE_CHECKING:  # with torch
    from ..model_file import ModelFile

__all__ = ["cache_folder", "cached_engine"]

_VARIABLE = "NEMO_CMIM_CACHE"


def cache_folder() -> Path:
    """`NEMO_CMIM_CACHE`, or `nemo_cmim` in `XDG_CACHE_HOME`, by default `~/.cache`."""
    if chosen := os.environ.get(_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemo_cmim"


def cached_engine(model: Path, engine: str, read: Callable[[], ModelFile]) -> tuple[Path, str]:
    """The folder of an engine of this model, exported if there is none yet, and the SHA-256 of the model.

    A changed model has another folder.

    Args:
        model: A `.nemo` file, or a folder with the members of one.
        engine: "onnx" or "onnx-int8".
        read: Reads the model, with torch; called only if the engine must be exported.

    Raises:
        ConfigError: If the folder cannot be written, or a package is not installed.
        CheckpointError: See `export_engine`.
    """
    digest = _digest_of(model)
    folder = cache_folder() / "engines" / f"{model.stem}-{digest[:16]}-{engine}-{__version__}"
    if is_engine_folder(folder):
        return folder, digest
    from .export import check_installed, export_engine

    check_installed()
    print(f"Exporting {model.stem} for engine={engine!r} to {folder}, once.", file=sys.stderr)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            export_engine(read(), staging, name=model.stem, source=digest, engines=(engine,))
            with suppress(OSError):  # another process was faster
                staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}. Set the environment variable {_VARIABLE} to a folder that can."
        ) from error
    return folder, digest


def _digest_of(model: Path) -> str:
    if model.is_file():
        return sha256_of(model)
    sums = [f"{path.name} {sha256_of(path)}" for path in sorted(model.iterdir()) if path.is_file()]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
