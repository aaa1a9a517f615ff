"""Loads models by name or path, and embeds molecules with them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import CheckpointError, ConfigError
from ..steps import Steps
from .device import multiply_exactly
from .model import CMIMModel
from .model_file import ModelFile, read_model_file
from .vectors import Progress

__all__ = ["embed", "list_models", "load"]

_FOLDER = Path(__file__).resolve().parents[1] / "shipped"
_DEFAULT = "cmim_small_v2"
_SUFFIX = ".nemo"
_CHECKSUMS = "SHA256SUMS"  # in the format of `sha256sum`
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


def list_models() -> list[str]:
    """Names of the models that ship with the package, the default first."""
    return sorted((path.stem for path in _FOLDER.glob(f"*{_SUFFIX}")), key=lambda name: (name != _DEFAULT, name))


def load(model: str | os.PathLike[str], device: str | None = None, precision: str = "fp32") -> CMIMModel:
    """Reads a model. No code in the file is run, and nothing is unpickled.

    Args:
        model: A name from `list_models()`, a `.nemo` file, or a folder with the members of one.
        device: For example "cpu" or "cuda:0"; None: a GPU if there is one, else the CPU.
        precision: "fp32", "bf16" or "fp16": the precision in which the network computes. Vectors are float32 in each case. Half precision
            is meant for GPUs; it changes vectors slightly, and therefore the fingerprint. On a GPU, "fp32" turns TF32 off in this
            process.

    Raises:
        CheckpointError: If the model does not exist, or if the file is damaged or was written by another project.
        ConfigError: If the device or the precision does not exist.
    """
    loaded = CMIMModel(model_file_of(model), device, os.fspath(model), precision)
    multiply_exactly(loaded.device, precision)
    return loaded


def model_file_of(model: str | os.PathLike[str]) -> ModelFile:
    """Reads settings, vocabulary, weights and card of a model; see `load` for arguments and errors."""
    if str(model) in list_models():
        return _read_shipped(f"{model}{_SUFFIX}")
    if not Path(model).exists():
        known = ", ".join(list_models()) or "none"
        raise CheckpointError(f"There is no model {str(model)!r}: it is neither a file nor the name of a shipped model ({known}).")
    return read_model_file(Path(model))


def embed(
    smiles: Any,
    model: str | os.PathLike[str] | CMIMModel | None = None,
    kind: str = "informative",
    *,
    device: str | None = None,
    layers: Sequence[int] | None = None,
    pooling: str = "mean",
    on_invalid: str = "raise",
    batch_size: int | None = None,
    canonical: bool = True,
    standardise: Steps = (),
    sample: bool = False,
    seed: int | None = None,
    first_index: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Computes vectors of molecules, float32 [N, width]; row i is `smiles[i]`.

    Args:
        smiles: N SMILES or RDKit molecules, in an order.
        model: A loaded model, or an argument of `load`; None: the default shipped model. The model is read once and kept in memory
            until its files change.
        kind: "informative" or "mean"; see `CMIMModel.embed`.
        device: See `load`.
        layers: See `CMIMModel.embed`, also for all further arguments.
        pooling: "mean" or "last".
        on_invalid: "raise", or "nan" to return a row of NaN.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        canonical: Canonicalise each SMILES first.
        standardise: Steps that change each molecule first.
        sample: Draw z from q(z|x) instead of using its mean.
        seed: Seed for `sample`.
        first_index: Index of the first molecule in error messages.
        progress: Called with the number of molecules done and of all molecules.

    Raises:
        InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
        CheckpointError: See `load`.
        ConfigError: See `CMIMModel.embed`.
    """
    return resolve(model, device).embed(
        smiles,
        kind,
        layers=layers,
        pooling=pooling,
        on_invalid=on_invalid,
        batch_size=batch_size,
        canonical=canonical,
        standardise=standardise,
        sample=sample,
        seed=seed,
        first_index=first_index,
        progress=progress,
    )


def resolve(model: str | os.PathLike[str] | CMIMModel | None, device: str | None = None) -> CMIMModel:
    """Returns the model that the arguments of `embed` name, loaded if necessary.

    Raises:
        CheckpointError: See `load`.
        ConfigError: If `model` is loaded on a device other than `device`.
    """
    if isinstance(model, CMIMModel):
        if device is not None and torch.device(device) != model.device:
            raise ConfigError(
                f"The model is loaded on {model.device}, but device={device!r}. Load the model with device={device!r}."
            )
        return model
    if model is None:
        names = list_models()
        if not names:
            raise CheckpointError(
                "No model ships with this version. Pass model=PATH of a .nemo file; `nemo-cmim train` writes one."
            )
        model = names[0]
    path = Path(model).absolute()
    files = sorted(path.iterdir()) if path.is_dir() else [path] * path.is_file()
    stamp = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _cached(os.fspath(model), device, stamp)


@functools.lru_cache(maxsize=2)
def _cached(model: str, device: str | None, stamp: tuple[tuple[Path, int, int], ...]) -> CMIMModel:
    return load(model, device)


def _read_shipped(name: str) -> ModelFile:
    """Reads a file of `_FOLDER` and compares the bytes with the checksum."""
    fix = "Reinstall the package."
    content = (_FOLDER / name).read_bytes()
    try:
        lines = (_FOLDER / _CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The checksums of the shipped models ({_CHECKSUMS}) cannot be read: {error}. {fix}") from error
    found = [_CHECKSUM_LINE.fullmatch(line) for line in lines]
    sums = {match[2]: match[1] for match in found if match}
    if None in found or name not in sums:
        state = "is damaged" if None in found else "does not list this file"
        raise CheckpointError(f"The shipped model {name} cannot be verified: {_CHECKSUMS} {state}. {fix}")
    if sums[name] != hashlib.sha256(content).hexdigest():
        raise CheckpointError(f"The shipped model {name} does not have the checksum in {_CHECKSUMS}. {fix}")
    return read_model_file(name, content)
