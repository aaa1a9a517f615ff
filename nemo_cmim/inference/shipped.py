"""Models by name: those that ship with the package, and those on disk."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import CheckpointError, ConfigError
from .checkpoint import Checkpoint, read_checkpoint
from .model import CMIMModel

__all__ = ["embed", "list_models", "load"]

_FOLDER = Path(__file__).resolve().parents[1] / "shipped"
_DEFAULT = "cmim_small"
_SUFFIX = ".nemo"
_CHECKSUMS = "SHA256SUMS"  # as `sha256sum` writes and checks it
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


def list_models() -> list[str]:
    """Names of the models that ship with the package, the default first."""
    return sorted((path.stem for path in _FOLDER.glob(f"*{_SUFFIX}")), key=lambda name: (name != _DEFAULT, name))


def load(model: str | os.PathLike[str], device: str | None = None) -> CMIMModel:
    """Reads a model. Nothing in the file is run, and nothing is unpickled.

    Args:
        model: A name of `list_models()`, a `.nemo` file, or a folder with its parts.
        device: Such as "cpu" or "cuda:0"; None takes a GPU if there is one.

    Raises:
        CheckpointError: There is no such model, or its file is damaged or foreign.
    """
    return CMIMModel(checkpoint_of(model), device)


def checkpoint_of(model: str | os.PathLike[str]) -> Checkpoint:
    """What `load` makes a model of: settings, vocabulary, weights and card."""
    if str(model) in list_models():
        return _read_shipped(f"{model}{_SUFFIX}")
    if not Path(model).exists():
        known = ", ".join(list_models()) or "none"
        raise CheckpointError(f"There is no model {str(model)!r}: no such file, and no shipped model of that name ({known}).")
    return read_checkpoint(Path(model))


def embed(
    smiles: Any,
    model: str | os.PathLike[str] | CMIMModel | None = None,
    kind: str = "informative",
    *,
    device: str | None = None,
    **options: Any,
) -> NDArray[np.float32]:
    """Vectors of molecules, float32 [N, width]; row i is `smiles[i]`.

    Args:
        smiles: N SMILES or RDKit molecules.
        model: A loaded model, or what `load` takes; None is the default shipped model. Read once and kept while its files stay the same.
        kind: "informative" or "mean".
        device: As `load`.
        **options: As `CMIMModel.embed` takes them: `on_invalid`, `batch_size`, `progress`, ...

    Raises:
        InvalidSmilesError: A molecule that cannot be used, unless `on_invalid="nan"`.
        CheckpointError: As `load`.
    """
    return resolve(model, device).embed(smiles, kind, **options)


def resolve(model: str | os.PathLike[str] | CMIMModel | None, device: str | None = None) -> CMIMModel:
    """The model that a caller means; see `embed`."""
    if isinstance(model, CMIMModel):
        if device is not None and torch.device(device) != model.device:
            raise ConfigError(f"The loaded model is on {model.device}, but device={device!r} was asked for. Load it there.")
        return model
    if model is None:
        names = list_models()
        if not names:
            raise CheckpointError("No model ships with this version. Pass model=PATH of a .nemo file; `nemo-cmim train` makes one.")
        model = names[0]
    path = Path(model).absolute()
    files = sorted(path.iterdir()) if path.is_dir() else [path] * path.is_file()
    stamp = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _cached(os.fspath(model), device, stamp)


@functools.lru_cache(maxsize=2)
def _cached(model: str, device: str | None, stamp: tuple[tuple[Path, int, int], ...]) -> CMIMModel:
    return load(model, device)


def _read_shipped(name: str) -> Checkpoint:
    """Reads a file of `_FOLDER` once, and checks the bytes that it got."""
    again = "Install the package again."
    content = (_FOLDER / name).read_bytes()
    try:
        lines = (_FOLDER / _CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The checksums of the shipped models ({_CHECKSUMS}) cannot be read: {error}. {again}") from error
    found = [_CHECKSUM_LINE.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in found if match}
    if None in found or name not in sums:
        state = "is damaged" if None in found else "does not name it"
        raise CheckpointError(f"The shipped model {name} cannot be checked: {_CHECKSUMS} {state}. {again}")
    if sums[name] != hashlib.sha256(content).hexdigest():
        raise CheckpointError(f"The shipped model {name} does not have the checksum in {_CHECKSUMS}. {again}")
    return read_checkpoint(name, content)
