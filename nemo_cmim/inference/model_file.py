"""Reads and writes model files (`.nemo`); the only module that depends on their format.

A model file is a tar archive, like NeMo's, with the members `model_config.yaml`, `model_weights.safetensors` (state dict of the PyTorch
network), `vocabulary.txt` and optionally `model_card.md`. A folder with these files can be read as well.

Model files may come from untrusted sources. Reading one runs no code and writes nothing: members are read into memory, YAML is loaded
as plain data, tensors as safetensors, and pickles are never opened. A small file cannot use much memory or time: members are limited in
size, absolutely and relative to the file, and YAML aliases and layers without weights are errors.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import tarfile
import zlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, DataError
from ..files import atomic_write
from ..mappings import from_mapping, to_mapping
from ..models import CMIMNetwork
from ..observed import PropertyTable
from ..tokenizers import Vocabulary
from ..version import __version__

__all__ = ["ModelFile", "read_model_file", "write_model_file"]

CONFIG, WEIGHTS, VOCABULARY, CARD = "model_config.yaml", "model_weights.safetensors", "vocabulary.txt", "model_card.md"
_MAX_BYTES = {CONFIG: 2**16, WEIGHTS: 2**36, VOCABULARY: 2**24, CARD: 2**20}
_MAX_MEMBERS = 1000
_MAX_COMPRESSION = 20  # ratio; weights of a trained network hardly compress at all
_PICKLES = (".ckpt", ".pt", ".pth", ".pkl", ".distcp")
_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_FINGERPRINT = "vocabulary_fingerprint"
_MORE_KEYS = {"target", "nemo_version", "nemo_cmim_version", _FINGERPRINT}
_TARGET = "nemo_cmim.training.model.MegatronCMIMModel"


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file.

    Attributes:
        config: All settings; inference uses `config.network` only.
        vocabulary: Tokens and their ids.
        weights: State dict of `models.CMIMNetwork(config.network)`.
        card: Model card, Markdown.
        properties: Table of the observed properties that heads of the network predict; None without heads.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    weights: Mapping[str, Tensor]
    card: str | None = None
    properties: PropertyTable | None = None


def write_model_file(path: str | Path, content: ModelFile, dtype: torch.dtype | None = None) -> None:
    """Writes a `.nemo` file atomically. Equal content gives equal bytes.

    Args:
        path: The file to write.
        content: The content; the data settings are left out, since they contain paths of this machine.
        dtype: Precision in which weights are stored; None: the precision of each tensor.

    Raises:
        CheckpointError: If vocabulary or weights do not match the network of the settings.
    """
    _check_fit(content, path)
    config = dataclasses.replace(content.config, train_ds=None, validation_ds=None, vocabulary=None)
    mapping = {"target": _TARGET, "nemo_cmim_version": __version__, **to_mapping(config)}
    mapping[_FINGERPRINT] = content.vocabulary.fingerprint
    weights = {name: weight.detach().to(dtype or weight.dtype).contiguous().cpu() for name, weight in content.weights.items()}
    members = {
        CONFIG: yaml.safe_dump(mapping, sort_keys=False).encode(),
        VOCABULARY: content.vocabulary.dumps().encode(),
        WEIGHTS: safetensors.torch.save(weights),
    }
    if content.card is not None:
        members[CARD] = content.card.encode()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as staging:
        with tarfile.open(staging, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        staging.chmod(0o644)  # readable by others, whatever the umask


def read_model_file(path: str | Path, data: bytes | None = None) -> ModelFile:
    """Reads a `.nemo` file, or a folder with its members.

    Args:
        path: The file or folder.
        data: The bytes of the file, if they have been read already; `path` is then used in error messages only.

    Raises:
        CheckpointError: If the file does not exist, is damaged or was written by another project, or if its members do not match.
    """
    path = Path(path)
    if data is None and not path.exists():
        raise CheckpointError(
            f"There is no model at {path}. Pass a .nemo file, or a folder with {CONFIG}, {WEIGHTS} and {VOCABULARY}."
        )
    members = _read_folder(path) if data is None and path.is_dir() else _read_archive(path, data)
    missing = [name for name in (CONFIG, WEIGHTS, VOCABULARY) if name not in members]
    if missing:
        raise CheckpointError(f"{path} does not contain {', '.join(missing)}: it is not a model of nemo_cmim, or it is incomplete.")
    config, fingerprint = _parse_config(members[CONFIG], path)
    vocabulary = _parse_vocabulary(members[VOCABULARY], path)
    content = ModelFile(
        config,
        vocabulary,
        _parse_weights(members[WEIGHTS], path),
        members[CARD].decode(errors="replace") if CARD in members else None,
    )
    _check_fit(content, path)
    if fingerprint != vocabulary.fingerprint:
        raise CheckpointError(
            f"{path}: the model was trained with the vocabulary {fingerprint[:12]}, but {VOCABULARY} is {vocabulary.fingerprint[:12]}. "
            f"Replace {VOCABULARY} by the vocabulary of the training run."
        )
    return content


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _MAX_BYTES if (folder / name).is_file()}


def _read_archive(path: Path, data: bytes | None) -> dict[str, bytes]:
    """The known members of a tar file, by name. Other members are skipped, whatever their paths."""
    members: dict[str, bytes] = {}
    try:
        size = path.stat().st_size if data is None else len(data)
        with tarfile.open(path, "r:*", fileobj=None if data is None else io.BytesIO(data)) as archive:
            for count, entry in enumerate(archive, 1):
                name = entry.name.removeprefix("./")
                _check_entry(entry, name, count, members, path, size)
                if name in _MAX_BYTES:
                    member = archive.extractfile(entry)
                    assert member is not None, "a regular member has content"
                    members[name] = member.read()
                    if len(members[name]) != entry.size:
                        raise CheckpointError(f"{path} is truncated inside {name}. Copy or export the file again.")
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a .nemo file, or it is damaged ({error}). Copy or export the file again.") from error
    return members


def _check_entry(entry: tarfile.TarInfo, name: str, count: int, members: Container[str], path: Path, size: int) -> None:
    """Raises an error if the archive was written by another project, or is corrupt or malicious."""
    if name.endswith(_PICKLES) or "model_weights/" in name:
        raise CheckpointError(
            f"{path} contains {name!r}: it is a .nemo file of another kind (for example of NeMo or BioNeMo), whose weights are pickled and "
            f"are not opened. nemo_cmim reads archives that contain {WEIGHTS}."
        )
    if count > _MAX_MEMBERS or entry.size > _MAX_COMPRESSION * size:
        raise CheckpointError(
            f"{path} has an implausible size or number of members ({count:,} members so far, {name!r} with {entry.size:,} bytes) for a "
            f"file of {size:,} bytes. The file is corrupt or malicious."
        )
    if name not in _MAX_BYTES:
        return
    if not entry.isreg():
        raise CheckpointError(
            f"{path}: the member {name} is a link or another special member, not a file. The archive is corrupt or malicious."
        )
    if entry.size > _MAX_BYTES[name]:
        raise CheckpointError(f"{path}: the member {name} has {entry.size:,} bytes, more than the maximum of {_MAX_BYTES[name]:,}.")
    if name in members:
        raise CheckpointError(f"{path} contains the member {name} twice.")


def _parse_config(content: bytes, path: Path) -> tuple[ModelConfig, str]:
    """The settings, and the fingerprint of the vocabulary of the training run."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, Loader=yaml.SafeLoader)):
            raise CheckpointError(f"{path}: {CONFIG} contains YAML aliases, which model files may not use.")
        mapping = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {CONFIG} is not plain YAML ({error}).") from error
    if not isinstance(mapping, dict):
        raise CheckpointError(f"{path}: {CONFIG} must be a mapping, found {type(mapping).__name__}.")
    try:
        config = from_mapping(ModelConfig, {key: value for key, value in mapping.items() if key not in _MORE_KEYS}, "model")
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {CONFIG} is not a config of this version of nemo_cmim. {error}") from error
    return config, str(mapping.get(_FINGERPRINT, "unknown"))


def _parse_vocabulary(content: bytes, path: Path) -> Vocabulary:
    try:
        return Vocabulary.loads(content.decode())
    except (DataError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {VOCABULARY} is damaged. {error}") from error


def _parse_weights(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {WEIGHTS} is damaged ({error}). Copy or export the file again.") from error
    for name, weight in weights.items():
        if weight.dtype not in _PRECISIONS:
            raise CheckpointError(
                f"{path}: the weight {name} has the type {weight.dtype}; weights must be float32, float16 or bfloat16."
            )
    return weights


def _check_fit(content: ModelFile, path: str | Path) -> None:
    """Raises an error unless vocabulary and weights match the network that the config describes."""
    network = content.config.network
    if len(content.vocabulary) != network.vocabulary_size:
        raise CheckpointError(
            f"{path}: the network has {network.vocabulary_size} tokens, but the vocabulary has {len(content.vocabulary)}."
        )
    layers = network.encoder_layers + network.decoder_layers
    if layers > len(content.weights):
        raise CheckpointError(
            f"{path}: the weights do not match the config: {layers} layers need more than {len(content.weights)} tensors."
        )
    try:
        with torch.device("meta"):
            expected: dict[str, Any] = {name: tuple(weight.shape) for name, weight in CMIMNetwork(network).state_dict().items()}
    except (RuntimeError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: a network with the sizes of the config cannot be built ({error}).") from error
    found = {name: tuple(weight.shape) for name, weight in content.weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: the weights do not match the config: {name} must have the shape {expected.get(name, 'none')}, "
                f"found {found.get(name, 'none')}."
            )
