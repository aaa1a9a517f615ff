"""A checkpoint on disk: a folder that appears whole or not at all, and says what is in it.

    step=00001000.ckpt/
      manifest.json    what it is: step, validation loss, parallel sizes, model settings; and size and checksum of each other file
      tensors/         weights, optimiser states and queues, as `torch.distributed.checkpoint` shards them
      state.pt         learning rate, loss scale, progress: plain values
      vocabulary.txt

It is written under a hidden name, flushed to disk, and renamed, so a kill leaves the earlier checkpoints and nothing that looks like one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...files import fsync

__all__ = [
    "CheckpointManifest",
    "commit",
    "digest_files",
    "find_checkpoints",
    "name_of",
    "newest_valid",
    "partial_of",
    "remove",
    "verify",
]

MANIFEST, TENSORS, STATE, VOCABULARY = "manifest.json", "tensors", "state.pt", "vocabulary.txt"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest:
    """What a checkpoint says of itself.

    Attributes:
        step: Optimiser steps done.
        monitored: The value that ranks checkpoints, such as the validation loss, at this very step; None if it was not measured.
        model: The settings of `config.ModelConfig`.
        order: What decides which molecules a step sees: seed, number of molecules, global batch.
        parallel: Numbers of tensor-parallel and data-parallel ranks that wrote it.
        vocabulary: Fingerprint.
        versions: Of this package and those that wrote the tensors.
        files: Size in bytes and BLAKE2b checksum of each file, by its path within the folder.
    """

    step: int
    monitored: float | None
    model: dict[str, Any]
    order: dict[str, int]
    parallel: dict[str, int]
    vocabulary: str
    versions: dict[str, str]
    files: dict[str, tuple[int, str]]

    @classmethod
    def read(cls, folder: Path) -> CheckpointManifest:
        """Reads that of a checkpoint.

        Raises:
            CheckpointError: There is none, or it cannot be read.
        """
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            own, found = content.pop("digest"), content.pop("format")
            if found != _FORMAT:
                raise CheckpointError(f"{folder} has format {found}, and this version reads format {_FORMAT}.")
            if own != _digest_of(content):
                raise CheckpointError(f"{folder} is damaged: the checksum of {MANIFEST} is not that of what was written.")
            return cls(**content)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder} is no checkpoint of this project, or an incomplete one: it has no {MANIFEST}."
            ) from error
        except CheckpointError:
            raise
        except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{folder / MANIFEST} cannot be read: {error}.") from error


def _digest_of(content: dict[str, Any]) -> str:
    """Of a manifest as JSON has it."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def name_of(step: int) -> str:
    """Name of a checkpoint's folder."""
    return f"step={step:08d}.ckpt"


def partial_of(folder: Path) -> Path:
    """Where a checkpoint is written before it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def digest_files(root: Path, files: Iterable[Path]) -> dict[str, tuple[int, str]]:
    """The entries of `CheckpointManifest.files`."""
    entries = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.blake2b()
            while chunk := file.read(2**20):
                digest.update(chunk)
        entries[path.relative_to(root).as_posix()] = path.stat().st_size, digest.hexdigest()[:32]
    return entries


def commit(folder: Path, manifest: CheckpointManifest) -> None:
    """Makes a whole checkpoint of the files in `partial_of(folder)`."""
    partial = partial_of(folder)
    absent = [name for name, (size, _) in manifest.files.items() if not _has_size(partial / name, size)]
    if absent:
        raise OSError(f"{absent[0]} of another rank is not there: all machines must see one file system")
    with (partial / MANIFEST).open("w", encoding="utf-8") as file:
        content = asdict(manifest)
        json.dump({"format": _FORMAT, "digest": _digest_of(content), **content}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for name in (STATE, VOCABULARY, TENSORS):
        fsync(partial / name)
    fsync(partial)
    partial.rename(folder)
    fsync(folder.parent)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def remove(folder: Path) -> None:
    """Removes a checkpoint; one that is half removed does not look like a checkpoint. One that resists stays, with a warning."""
    doomed = partial_of(folder)
    try:
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        warnings.warn(f"{folder} is no longer needed and could not be removed: {error.strerror}.", stacklevel=2)


def verify(folder: Path) -> CheckpointManifest:
    """Checks that a checkpoint is whole, every byte of it.

    Raises:
        CheckpointError: Names the file, and what is wrong with it.
    """
    manifest = CheckpointManifest.read(folder)
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing.")
        if path.stat().st_size != size:
            raise CheckpointError(f"{folder} is damaged: {name} has {path.stat().st_size} bytes, and had {size} when written.")
        if digest_files(folder, [path])[name][1] != digest:
            raise CheckpointError(f"{folder} is damaged: the checksum of {name} is not that of what was written.")
    return manifest


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first; not verified."""
    return sorted(folder.glob("step=*.ckpt"), reverse=True)


def newest_valid(folder: Path) -> tuple[Path | None, list[CheckpointError]]:
    """The newest checkpoint that is whole, and what is wrong with newer ones."""
    refused = []
    for path in find_checkpoints(folder):
        try:
            verify(path)
        except CheckpointError as error:
            refused.append(error)
        else:
            return path, refused
    return None, refused


def differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key is X and not Y` for each key in which two nested mappings differ."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differing(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key} is {left} and not {right}")
    return found
