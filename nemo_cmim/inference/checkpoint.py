"""The file format: the one place that reads and writes `.nemo` files.

A `.nemo` is a tar archive, as NeMo's are, of four members: `model_config.yaml`, `model_weights.safetensors` (the plain network's state
dict), `vocabulary.txt` and, if there is one, `model_card.md`. The same files in a folder are read as well.

Files come from anywhere, so reading runs no code and writes nothing: members are read into memory, YAML is data, tensors are
safetensors; a pickle is never opened. A small file cannot ask for much memory or time: a member may be no larger than its limit, nor
far larger than the file; YAML aliases and layers without weights are refused.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import os
import tarfile
import tempfile
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

from ..config import ModelConfig, from_mapping, to_mapping
from ..errors import CheckpointError, ConfigError, DataError
from ..models import CMIMNetwork
from ..tokenizers import Vocabulary
from ..version import __version__

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]

CONFIG, WEIGHTS, VOCABULARY, CARD = "model_config.yaml", "model_weights.safetensors", "vocabulary.txt", "model_card.md"
_LARGEST = {CONFIG: 2**16, WEIGHTS: 2**36, VOCABULARY: 2**24, CARD: 2**20}  # bytes
_MOST_MEMBERS = 1000
_MOST_COMPRESSED = 20  # times; weights of a trained network hardly compress at all
_PICKLES = (".ckpt", ".pt", ".pth", ".pkl", ".distcp")
_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_FINGERPRINT = "vocabulary_fingerprint"
_MORE_KEYS = {"target", "nemo_version", "nemo_cmim_version", _FINGERPRINT}
_TARGET = "nemo_cmim.training.model.MegatronCMIMModel"


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        config: All settings; inference needs `config.network`.
        vocabulary: Token table.
        weights: State dict of `models.CMIMNetwork(config.network)`.
        card: Model card, Markdown.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    weights: Mapping[str, Tensor]
    card: str | None = None


def write_checkpoint(path: str | Path, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
    """Writes a `.nemo` file. The same checkpoint gives the same bytes; the file appears whole or not at all.

    Args:
        path: The file.
        checkpoint: What to write; the data settings are left out, as they name places on this machine.
        dtype: Storage precision of the weights; None keeps theirs.
    """
    _check_fit(checkpoint, path)
    config = dataclasses.replace(checkpoint.config, train_ds=None, validation_ds=None, vocabulary=None)
    mapping = {"target": _TARGET, "nemo_cmim_version": __version__, **to_mapping(config)}
    mapping[_FINGERPRINT] = checkpoint.vocabulary.fingerprint
    weights = {name: weight.detach().to(dtype or weight.dtype).contiguous().cpu() for name, weight in checkpoint.weights.items()}
    members = {
        CONFIG: yaml.safe_dump(mapping, sort_keys=False).encode(),
        VOCABULARY: checkpoint.vocabulary.dumps().encode(),
        WEIGHTS: safetensors.torch.save(weights),
    }
    if checkpoint.card is not None:
        members[CARD] = checkpoint.card.encode()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                for name, content in members.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def read_checkpoint(path: str | Path, content: bytes | None = None) -> Checkpoint:
    """Reads a `.nemo` file, or a folder with the same files.

    Args:
        path: The file or folder.
        content: The bytes of a file that has been read already; `path` is then no more than its name in errors.

    Raises:
        CheckpointError: There is no such file; it is damaged; it is another project's; or its parts do not fit together.
    """
    path = Path(path)
    if content is None and not path.exists():
        raise CheckpointError(
            f"There is no model at {path}. Pass a .nemo file, or a folder with {CONFIG}, {WEIGHTS} and {VOCABULARY}."
        )
    members = _read_folder(path) if content is None and path.is_dir() else _read_archive(path, content)
    missing = [name for name in (CONFIG, WEIGHTS, VOCABULARY) if name not in members]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}: it is not a model of nemo_cmim, or not a whole one.")
    config, fingerprint = _parse_config(members[CONFIG], path)
    vocabulary = _parse_vocabulary(members[VOCABULARY], path)
    checkpoint = Checkpoint(
        config,
        vocabulary,
        _parse_weights(members[WEIGHTS], path),
        members[CARD].decode(errors="replace") if CARD in members else None,
    )
    _check_fit(checkpoint, path)
    if fingerprint != vocabulary.fingerprint:
        raise CheckpointError(
            f"{path}: the model was trained with the vocabulary {fingerprint[:12]}, but {VOCABULARY} is {vocabulary.fingerprint[:12]}. "
            "Put the right one in its place."
        )
    return checkpoint


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _LARGEST if (folder / name).is_file()}


def _read_archive(path: Path, content: bytes | None) -> dict[str, bytes]:
    """The known members of a tar file, by name. Others are skipped, wherever their names point."""
    members: dict[str, bytes] = {}
    try:
        size = path.stat().st_size if content is None else len(content)
        with tarfile.open(path, "r:*", fileobj=None if content is None else io.BytesIO(content)) as archive:
            for count, entry in enumerate(archive, 1):
                name = entry.name.removeprefix("./")
                _check_entry(entry, name, count, members, path, size)
                if name in _LARGEST:
                    member = archive.extractfile(entry)
                    assert member is not None, "a regular member has content"
                    members[name] = member.read()
                    if len(members[name]) != entry.size:
                        raise CheckpointError(f"{path} is cut short inside {name}. Copy or save it again.")
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a .nemo file, or is damaged ({error}). Copy or save it again.") from error
    return members


def _check_entry(entry: tarfile.TarInfo, name: str, count: int, members: Container[str], path: Path, size: int) -> None:
    """Refuses an archive that is another project's, or made to harm."""
    if name.endswith(_PICKLES) or "model_weights/" in name:
        raise CheckpointError(
            f"{path} holds {name!r}: it is a .nemo of another kind (such as NeMo's or BioNeMo's own), whose weights are pickled and are "
            f"not opened. nemo_cmim reads archives with {WEIGHTS}."
        )
    if count > _MOST_MEMBERS or entry.size > _MOST_COMPRESSED * size:
        raise CheckpointError(
            f"{path} claims to hold far more than its own size, as no model does. It is damaged, or made to harm."
        )
    if name not in _LARGEST:
        return
    if not entry.isreg():
        raise CheckpointError(f"{path}: {name} is a link or another special member, not a file. It is damaged, or made to harm.")
    if entry.size > _LARGEST[name]:
        raise CheckpointError(f"{path}: {name} claims {entry.size:,} bytes, more than any model of this kind has.")
    if name in members:
        raise CheckpointError(f"{path} holds {name} twice.")


def _parse_config(content: bytes, path: Path) -> tuple[ModelConfig, str]:
    """The settings, and the fingerprint of the vocabulary that the model was trained with."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, Loader=yaml.SafeLoader)):
            raise CheckpointError(f"{path}: {CONFIG} holds YAML aliases, which no config of this kind needs.")
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
        raise CheckpointError(f"{path}: {WEIGHTS} is damaged ({error}). Copy or save it again.") from error
    for name, weight in weights.items():
        if weight.dtype not in _PRECISIONS:
            raise CheckpointError(
                f"{path}: {name} is stored as {weight.dtype}; weights are stored as float32, float16 or bfloat16."
            )
    return weights


def _check_fit(checkpoint: Checkpoint, path: str | Path) -> None:
    """Vocabulary and weights must be those of the network that the config describes."""
    network = checkpoint.config.network
    if len(checkpoint.vocabulary) != network.vocabulary_size:
        raise CheckpointError(
            f"{path}: the network was made for {network.vocabulary_size} tokens, but the vocabulary has {len(checkpoint.vocabulary)}."
        )
    layers = network.encoder_layers + network.decoder_layers
    if layers > len(checkpoint.weights):
        raise CheckpointError(
            f"{path}: the weights do not fit the config: {layers} layers cannot be made of {len(checkpoint.weights)} tensors."
        )
    try:
        with torch.device("meta"):
            expected: dict[str, Any] = {name: tuple(weight.shape) for name, weight in CMIMNetwork(network).state_dict().items()}
    except (RuntimeError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: no network has the sizes of the config ({error}).") from error
    found = {name: tuple(weight.shape) for name, weight in checkpoint.weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: the weights do not fit the config: {name} should have the shape {expected.get(name, 'none')}, "
                f"found {found.get(name, 'none')}."
            )
