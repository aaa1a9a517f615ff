"""Loads models by name or path, and embeds molecules with them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, ConfigError
from ..steps import Steps
from .batching import Progress
from .capabilities import embedding_spec
from .embedding import EmbeddingModel
from .engines import TORCH, engine_of
from .engines.cache import cached_engine
from .engines.folder import is_engine_folder
from .engines.onnx_model import OnnxModel
from .hub import SCHEME, hub_file
from .inputs import InputOptions, molecule_rows
from .removed import name_hint

if TYPE_CHECKING:  # with torch
    from .model_file import ModelFile

__all__ = ["embed", "list_models", "load", "loading_of", "reference_of", "resolve"]

_FOLDER = Path(__file__).resolve().parents[1] / "shipped"
_DEFAULT = "cmim_small_v3"
_SUFFIX = ".nemo"
_CHECKSUMS = "SHA256SUMS"  # in the format of `sha256sum`
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


def list_models() -> list[str]:
    """Names of the models that ship with the package, the default first."""
    return sorted((path.stem for path in _FOLDER.glob(f"*{_SUFFIX}")), key=lambda name: (name != _DEFAULT, name))


def load(
    model: str | os.PathLike[str], device: str | None = None, precision: str = "fp32", engine: str | None = None
) -> Any:  # CMIMModel, or OnnxModel for an ONNX engine
    """Reads a model. No code in the file is run, and nothing is unpickled.

    Args:
        model: A name from `list_models()`, a `.nemo` file, a folder with the members of one, a folder written by `nemo-cmim
            export-onnx`, or `hf://owner/name#sha256`, a file on the Hugging Face Hub; see `hub.hub_file` for other forms.
        device: For example "cpu" or "cuda:0"; None: a GPU if there is one, else the CPU. ONNX engines use the CPU.
        precision: "fp32", "bf16" or "fp16": the precision in which the network computes. Vectors are float32 in each case. Half precision
            is meant for GPUs; it changes vectors slightly, and therefore the fingerprint. On a GPU, "fp32" turns TF32 off in this
            process.
        engine: "torch"; "onnx", ONNX Runtime in fp32, which embeds without importing torch; or "onnx-int8", which multiplies integers
            of 8 bits: faster, with vectors that differ slightly and have their own fingerprint. None: the environment variable
            `NEMO_CMIM_ENGINE`, or else the engine that the file or folder is made for. An ONNX engine of a `.nemo` file is exported
            when it is used for the first time, and kept in the folder `NEMO_CMIM_CACHE`, by default `~/.cache/nemo_cmim`.

    Returns:
        `CMIMModel`, or for an ONNX engine `engines.onnx_model.OnnxModel`, which has the methods that compute vectors.

    Raises:
        CheckpointError: If the model does not exist, or if the file is damaged, was written by another project, or misses the fidelity
            that it states.
        ConfigError: If the device, the precision or the engine does not exist, or its packages are not installed.
    """
    name, chosen = os.fspath(model), engine_of(engine)
    path = _path_of(name)
    if is_engine_folder(path):
        return OnnxModel.load(path, chosen, name=name, device=device, precision=precision)
    if chosen not in (None, TORCH):
        OnnxModel.check_settings(device, precision)
        with _needs_torch():  # for the export
            folder, digest = cached_engine(path, chosen, lambda: model_file_of(name))
        return OnnxModel.load(folder, chosen, name=name, source=digest)
    with _needs_torch():
        from .model import CMIMModel

    return CMIMModel(model_file_of(name), device, name, precision)


def model_file_of(model: str | os.PathLike[str]) -> ModelFile:
    """Reads settings, vocabulary, weights and card of a model; see `load` for arguments and errors."""
    with _needs_torch():
        from .model_file import read_model_file

    path = _path_of(str(model))
    return _read_shipped(path.name) if path.parent == _FOLDER else read_model_file(path)


@contextmanager
def _needs_torch() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            "Reading a model requires torch, which is not installed: pip install torch. Without it, pass a folder that `nemo-cmim "
            "export-onnx` wrote on another computer as the model."
        ) from error


def _path_of(model: str) -> Path:
    """The file or folder of a model, downloaded if it is on the Hub; see `load` for errors."""
    if model in (known := list_models()):
        return _FOLDER / f"{model}{_SUFFIX}"
    path = hub_file(model) if model.startswith(SCHEME) else Path(model)
    if not path.exists():
        raise CheckpointError(
            f"There is no model {model!r}: it is neither a file nor the name of a shipped model ({', '.join(known) or 'none'})."
            f"{name_hint(model)}"
        )
    return path


def embed(
    smiles: Any,
    model: str | os.PathLike[str] | EmbeddingModel | None = None,
    kind: str = "informative",
    *,
    device: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
    layers: Sequence[int] | None = None,
    pooling: str = "mean",
    on_invalid: str = "raise",
    batch_size: int | None = None,
    canonical: bool = True,
    standardise: Steps = (),
    sample: bool = False,
    seed: int | None = None,
    first_index: int = 0,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Computes vectors of molecules, float32 [N, width]; row i is `smiles[i]`.

    Args:
        smiles: N SMILES or RDKit molecules, in an order.
        model: A loaded model, or an argument of `load`; None: the default shipped model. The model is read once and kept in memory
            until its files change.
        kind: "informative" or "mean"; see `CMIMModel.embed`.
        device: See `load`.
        precision: See `load`; None: "fp32".
        engine: See `load`.
        layers: See `CMIMModel.embed`, also for all further arguments.
        pooling: "mean" or "last".
        on_invalid: "raise", or "nan" to return a row of NaN.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        canonical: Canonicalise each SMILES first.
        standardise: Steps that change each molecule first.
        sample: Draw z from q(z|x) instead of using its mean.
        seed: Seed for `sample`.
        first_index: Index of the first molecule in error messages.
        n_jobs: Number of processes, as in scikit-learn; -1: one on each core. They take a few seconds to start. The rows do not depend on
            it.
        progress: Called with the number of molecules done and of all molecules.

    Raises:
        InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
        CheckpointError: See `load`.
        ConfigError: See `CMIMModel.embed`.
    """
    loaded = resolve(model, device, precision, engine)
    if n_jobs is not None:
        from .processes import ROWS_AT_ONCE, embed_in_processes, process_count

        processes, smiles = process_count(n_jobs), molecule_rows(smiles)
        if processes > 1 and sample:
            raise ConfigError("sample=True draws from one sequence of random numbers, in one process. Leave n_jobs out.")
        if processes > 1 and len(smiles) > ROWS_AT_ONCE:
            spec = embedding_spec(loaded.config, kind, layers, pooling)
            options = InputOptions(on_invalid, canonical, standardise, first_index)
            return embed_in_processes(loaded, smiles, spec, options, batch_size, processes, progress)
    return loaded.embed(
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


def resolve(
    model: str | os.PathLike[str] | EmbeddingModel | None,
    device: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
) -> Any:  # see `load`
    """Returns the model that the arguments of `embed` name, loaded if necessary.

    Raises:
        CheckpointError: See `load`.
        ConfigError: If `model` is loaded with another device, precision or engine than these arguments say.
    """
    if isinstance(model, EmbeddingModel):
        for name, value in (("device", device), ("precision", precision), ("engine", engine)):
            if value is not None and str(value) != (loaded := str(getattr(model, name))):
                raise ConfigError(
                    f"The model is loaded with {name}={loaded!r}, but {name}={value!r} is asked for. Load the model with {name}={value!r}."
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
    return _cached(os.fspath(model), device, precision or "fp32", engine_of(engine), stamp)


def reference_of(model: EmbeddingModel) -> str | None:
    """What other processes can pass to `load` to get the same model: a name or an absolute path; None if it was not loaded by one."""
    if model.name is None or model.name in list_models() or "://" in model.name:
        return model.name
    return os.path.abspath(model.name)


def loading_of(model: EmbeddingModel) -> dict[str, str]:
    """Arguments of `load` with which another process gets a model that computes the same vectors, beside its name and device."""
    return {"precision": model.precision if model.engine == TORCH else "fp32", "engine": model.engine}


@functools.lru_cache(maxsize=2)
def _cached(model: str, device: str | None, precision: str, engine: str | None, stamp: tuple[tuple[Path, int, int], ...]) -> Any:
    return load(model, device, precision, engine)


def _read_shipped(name: str) -> ModelFile:
    """Reads a file of `_FOLDER` and compares the bytes with the checksum."""
    from .model_file import read_model_file

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
