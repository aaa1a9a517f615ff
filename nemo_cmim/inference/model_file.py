"""Reads and writes model files (`.nemo`).

A model file is a tar archive, like NeMo's, with the members `manifest.json` (checksums, see `model_archive`), `model_config.yaml`,
`model_weights.safetensors` (state dict of the PyTorch network), `vocabulary.txt` and optionally `model_card.md`, `properties.json`
(table of the properties that heads predict) and `latent_density.safetensors` (density of the aggregated posterior). A folder with these
files can be read as well.

Model files may come from untrusted sources. Reading one runs no code and writes nothing: members are read into memory, YAML is loaded
as plain data, tensors as safetensors, and pickles are never opened. A small file cannot use much memory or time: members are limited in
size, absolutely and relative to the file, and YAML aliases and layers without weights are errors.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
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
from ..generation import DENSITY, LatentDensity
from ..mappings import from_mapping, to_mapping
from ..models import CMIMNetwork
from ..observed import PROPERTIES, PropertyTable
from ..tokenizers import Vocabulary
from ..version import __version__
from .hub import SCHEME
from .model_archive import CARD, CONFIG, MANIFEST, VOCABULARY, WEIGHTS, read_members, write_members

__all__ = ["ModelFile", "is_model_file", "read_model_file", "write_model_file"]

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
        density: Density of the aggregated posterior, over latents of K * D numbers; None if it has not been fitted.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    weights: Mapping[str, Tensor]
    card: str | None = None
    properties: PropertyTable | None = None
    density: LatentDensity | None = None


def write_model_file(path: str | Path, content: ModelFile, dtype: torch.dtype | None = None) -> None:
    """Writes a `.nemo` file atomically. Equal content gives equal bytes.

    Args:
        path: The file to write.
        content: The content. Paths of this machine are left out: data settings, and the folder of `restore_from_path`.
        dtype: Precision in which weights are stored; None: the precision of each tensor.

    Raises:
        CheckpointError: If vocabulary, weights, properties or density do not match the network of the settings.
    """
    _check_fit(content, path)
    config = dataclasses.replace(content.config, train_ds=None, validation_ds=None, vocabulary=None)
    mapping = {"target": _TARGET, "nemo_cmim_version": __version__, **to_mapping(config)}
    start = mapping.pop("restore_from_path")
    if start is not None:
        mapping["restore_from_path"] = start if start.startswith(SCHEME) else Path(start).name
    mapping[_FINGERPRINT] = content.vocabulary.fingerprint
    weights = {name: weight.detach().to(dtype or weight.dtype).contiguous().cpu() for name, weight in content.weights.items()}
    members = {
        CONFIG: yaml.safe_dump(mapping, sort_keys=False).encode(),
        VOCABULARY: content.vocabulary.dumps().encode(),
        WEIGHTS: safetensors.torch.save(weights),
    }
    if content.card is not None:
        members[CARD] = content.card.encode()
    if content.properties is not None:
        members[PROPERTIES] = content.properties.dumps().encode()
    if content.density is not None:
        members[DENSITY] = content.density.dumps()
    write_members(Path(path), members)


def is_model_file(path: str | Path) -> bool:
    """True for a file, and for a folder with the settings of a model; the content is not checked."""
    return Path(path).is_file() or (Path(path) / CONFIG).is_file()


def read_model_file(path: str | Path, data: bytes | None = None) -> ModelFile:
    """Reads a `.nemo` file, or a folder with its members.

    Args:
        path: The file or folder.
        data: The bytes of the file, if they have been read already; `path` is then used in error messages only.

    Raises:
        CheckpointError: If the file does not exist, is damaged or was written by another project, or if its members do not match.

    Warns:
        UserWarning: If the file has version 1, which has no checksums.
    """
    path = Path(path)
    if data is None and not path.exists():
        raise CheckpointError(
            f"There is no model at {path}. Pass a .nemo file, or a folder with {CONFIG}, {WEIGHTS} and {VOCABULARY}."
        )
    members = read_members(path, data)
    config, fingerprint = _parse_config(members[CONFIG], path)
    vocabulary = _parse_vocabulary(members[VOCABULARY], path)
    content = ModelFile(
        config,
        vocabulary,
        _parse_weights(members[WEIGHTS], path),
        members[CARD].decode(errors="replace") if CARD in members else None,
        _parse_properties(members[PROPERTIES], path) if PROPERTIES in members else None,
        _parse_density(members[DENSITY], path) if DENSITY in members else None,
    )
    _check_fit(content, path)
    if fingerprint != vocabulary.fingerprint:
        raise CheckpointError(
            f"{path}: the model was trained with the vocabulary {fingerprint[:12]}, but {VOCABULARY} is {vocabulary.fingerprint[:12]}. "
            f"Replace {VOCABULARY} by the vocabulary of the training run."
        )
    if MANIFEST not in members:
        warnings.warn(
            f"{path} has no checksums, so damage to it cannot be detected: it is a model file of version 1. Write it again with checksums: "
            f"nemo-cmim export {path} -o NEW.nemo",
            stacklevel=2,
        )
    return content


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


def _parse_properties(content: bytes, path: Path) -> PropertyTable:
    try:
        return PropertyTable.loads(content.decode(), PROPERTIES)
    except (DataError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{path}: {PROPERTIES} is damaged. {error}") from error


def _parse_density(content: bytes, path: Path) -> LatentDensity:
    try:
        return LatentDensity.loads(content)
    except DataError as error:
        raise CheckpointError(f"{path}: {error} Copy or export the file again.") from error


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
    """Raises an error unless vocabulary, weights, properties and density match the network that the config describes."""
    network = content.config.network
    if len(content.vocabulary) != network.vocabulary_size:
        raise CheckpointError(
            f"{path}: the network has {network.vocabulary_size} tokens, but the vocabulary has {len(content.vocabulary)}."
        )
    heads, table = network.heads, content.properties
    if heads.sources and (table is None or (table.values, table.bits) != (heads.values, heads.bits)):
        state = "missing" if table is None else f"that of {len(table.values)} properties and {table.bits} bits"
        raise CheckpointError(
            f"{path}: the heads predict {len(heads.values)} properties and {heads.bits} bits, but their table {PROPERTIES} is {state}."
        )
    size = network.latents * network.hidden_size
    if content.density is not None and (not network.has_bottleneck or content.density.size != size):
        raise CheckpointError(
            f"{path}: {DENSITY} has {content.density.size} dimensions, but a latent of the network has "
            f"{size if network.has_bottleneck else 'no fixed number of them'}."
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
