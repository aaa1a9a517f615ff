"""The folder of an engine: ONNX graphs, the vocabulary, and `engine.json`, which describes and verifies them.

    encoder.onnx, decoder.onnx              engine "onnx"; no decoder for a model that has none
    encoder.int8.onnx, decoder.int8.onnx    engine "onnx-int8"
    vocabulary.txt
    engine.json

`engine.json` contains the SHA-256 of each file and of its own content, so files of two exports are never mixed. It names the model and
the digest of its weights, and has the fidelity of each engine and a few molecules with their vectors from PyTorch: an engine
computes them again when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import ModelConfig
from ...errors import CheckpointError, ConfigError
from ...files import sha256_of
from ...mappings import from_mapping
from ...tokenizers import Vocabulary
from . import INT8, ONNX

__all__ = [
    "DESCRIPTION",
    "OPSET",
    "VOCABULARY",
    "EngineFolder",
    "graph_files",
    "is_engine_folder",
    "read_folder",
    "write_description",
]

DESCRIPTION, VOCABULARY = "engine.json", "vocabulary.txt"
OPSET = 20  # of the graphs; the first with Gelu
_FORMAT = "nemo_cmim engine 1"
_AGAIN = "Delete the folder, and export the model again."


@dataclass(frozen=True)
class EngineFolder:
    """The checked content of `engine.json`.

    Attributes:
        path: The folder.
        config: Settings of the model.
        vocabulary: Its tokens.
        weights: `weights_digest` of its network.
        parameters: Their number.
        model: Its name.
        source: SHA-256 of its file, or empty.
        limits: Smallest cosine similarity to vectors of PyTorch, by engine; the engines of the folder are its keys.
        probes: SMILES of a few molecules.
        vectors: Their vectors from PyTorch, by kind.
        onnxruntime: Version of the package with which the fidelity was measured.
    """

    path: Path
    config: ModelConfig
    vocabulary: Vocabulary
    weights: str
    parameters: int
    model: str
    source: str
    limits: Mapping[str, float]
    probes: Sequence[str]
    vectors: Mapping[str, Sequence[Sequence[float]]]
    onnxruntime: str


def graph_files(engine: str, *, has_decoder: bool) -> list[str]:
    """Names of the graphs of an engine: encoder, then decoder."""
    suffix = ".int8.onnx" if engine == INT8 else ".onnx"
    return [f"{part}{suffix}" for part in (("encoder", "decoder") if has_decoder else ("encoder",))]


def is_engine_folder(path: str | os.PathLike[str]) -> bool:
    """Whether this is a folder with an `engine.json`."""
    return Path(path, DESCRIPTION).is_file()


def write_description(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes `engine.json`, with the checksums of all files that the folder has now."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != DESCRIPTION}
    complete = {"format": _FORMAT, **content, "opset": OPSET, "files": files}
    text = json.dumps({**complete, "sha256": _digest(complete)}, indent=1)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def read_folder(path: Path, engine: str | None) -> tuple[EngineFolder, str]:
    """Reads a folder and verifies the files of an engine.

    Args:
        path: The folder.
        engine: "onnx" or "onnx-int8"; None: the first that the folder has.

    Returns:
        Its description, and the engine.

    Raises:
        CheckpointError: If the folder was written by another version or changed since, or does not have the engine.
        ConfigError: If `engine` is "torch".
    """
    content = _read_description(path)
    try:
        config, files = from_mapping(ModelConfig, content["config"], "config"), content["files"]
        limits = {name: facts["smallest_cosine_allowed"] for name, facts in content["engines"].items()}
        model, probes, version = content["model"], content["probes"], content["versions"]["onnxruntime"]
        facts = (model["weights"], model["parameters"], model["name"], model["sha256"], limits, probes["smiles"], probes["vectors"])
    except (LookupError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path / DESCRIPTION} is not of this version of nemo_cmim ({error!r}). {_AGAIN}") from error
    chosen = engine or next(iter(limits))
    if chosen not in (ONNX, INT8):
        raise ConfigError(
            f'{path} has ONNX graphs, which engine={chosen!r} cannot use. Pass engine="onnx", or a .nemo file as the model.'
        )
    if chosen not in limits:
        option = " --int8" if chosen == INT8 else ""
        raise CheckpointError(
            f"{path} has the engine {' and '.join(limits)}, but not {chosen}. Export it with `nemo-cmim export-onnx{option}`."
        )
    for name in [VOCABULARY, *graph_files(chosen, has_decoder=config.network.decoder_layers > 0)]:
        if not (path / name).is_file():
            raise CheckpointError(f"{path} is incomplete: {name} is missing. {_AGAIN}")
        if sha256_of(path / name) != files.get(name):
            raise CheckpointError(
                f"{path} is damaged: the checksum of {name} does not match. It was changed, or is of another model. {_AGAIN}"
            )
    return EngineFolder(path, config, Vocabulary.load(path / VOCABULARY), *facts, version), chosen


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != _FORMAT or content.get("opset") != OPSET:
            found = (content.get("format"), content.get("opset")) if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(
                f"{path / DESCRIPTION} has another format or opset: found {found}, this version of nemo_cmim reads {(_FORMAT, OPSET)}. "
                f"{_AGAIN}"
            )
        if content.pop("sha256", None) != _digest(content):
            raise CheckpointError(f"{path} is damaged: the checksum of {DESCRIPTION} does not match. {_AGAIN}")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path / DESCRIPTION} cannot be read ({type(error).__name__}: {error}). {_AGAIN}") from error
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
