"""A checkpoint on disk: a folder that is written atomically and describes its contents.

    step=00001000.ckpt/
      manifest.json    step, validation loss, parallel sizes and model settings; size and checksum of each other file
      tensors/         weights, optimiser states and queues in the format of `torch.distributed.checkpoint`
      state.pt         learning rate, loss scale and progress: plain values
      vocabulary.txt
      properties.json  table of the observed properties that heads predict, if there are any

It is written under a hidden name, synchronised to disk and then renamed. A process that is killed while it writes leaves the earlier
checkpoints and no incomplete folder with the name of a checkpoint.
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
    "folder_name",
    "newest_valid",
    "partial_of",
    "remove",
    "verify",
]

MANIFEST, TENSORS, STATE, VOCABULARY = "manifest.json", "tensors", "state.pt", "vocabulary.txt"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest:
    """Description of a checkpoint.

    Attributes:
        step: Number of completed steps.
        monitored: The value that ranks checkpoints at this step, such as the validation loss; None if it was not measured.
        model: The settings of `config.ModelConfig`.
        order: Values that determine the molecules of each step: seed, number of molecules, global batch size.
        parallel: Numbers of tensor-parallel and data-parallel ranks that wrote the checkpoint.
        vocabulary: Fingerprint of the vocabulary.
        versions: Versions of this package, torch and Megatron-Core.
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
        """Reads the manifest of a checkpoint.

        Raises:
            CheckpointError: If the manifest is missing, damaged or of a different format version.
        """
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            own, found = content.pop("digest"), content.pop("format")
            if found != _FORMAT:
                raise CheckpointError(f"{folder} has the format version {found}, but this package reads version {_FORMAT}.")
            if own != _digest_of(content):
                raise CheckpointError(f"{folder} is damaged: the checksum of {MANIFEST} does not match.")
            return cls(**content)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder} is not a checkpoint of nemo_cmim, or is incomplete: it does not contain {MANIFEST}."
            ) from error
        except CheckpointError:
            raise
        except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{folder / MANIFEST} cannot be read: {error}.") from error


def _digest_of(content: dict[str, Any]) -> str:
    """Checksum of the content of a manifest."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def folder_name(step: int) -> str:
    """Name of the folder of a checkpoint."""
    return f"step={step:08d}.ckpt"


def partial_of(folder: Path) -> Path:
    """The hidden folder in which a checkpoint is written until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


def digest_files(root: Path, files: Iterable[Path]) -> dict[str, tuple[int, str]]:
    """Sizes and checksums for `CheckpointManifest.files`."""
    entries = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.blake2b()
            while chunk := file.read(2**20):
                digest.update(chunk)
        entries[path.relative_to(root).as_posix()] = path.stat().st_size, digest.hexdigest()[:32]
    return entries


def commit(folder: Path, manifest: CheckpointManifest) -> None:
    """Turns the files in `partial_of(folder)` into a complete checkpoint.

    Raises:
        OSError: If a file that another rank has written is missing, or if the folder cannot be written.
    """
    partial = partial_of(folder)
    absent = [name for name, (size, _) in manifest.files.items() if not _has_size(partial / name, size)]
    if absent:
        raise OSError(f"{absent[0]}, which another rank has written, is missing: all nodes must use the same file system")
    with (partial / MANIFEST).open("w", encoding="utf-8") as file:
        content = asdict(manifest)
        json.dump({"format": _FORMAT, "digest": _digest_of(content), **content}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for path in partial.iterdir():
        fsync(path)
    fsync(partial)
    partial.rename(folder)
    fsync(folder.parent)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def remove(folder: Path) -> None:
    """Removes a checkpoint. It is renamed first, so that a partly removed checkpoint is not found. A failure is only a warning."""
    partial = partial_of(folder)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        folder.rename(partial)
        shutil.rmtree(partial)
    except OSError as error:
        warnings.warn(f"The checkpoint {folder} is no longer needed, but could not be removed: {error.strerror}.", stacklevel=2)


def verify(folder: Path) -> CheckpointManifest:
    """Checks the size and the checksum of each file of a checkpoint, and returns the manifest.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    manifest = CheckpointManifest.read(folder)
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing.")
        if path.stat().st_size != size:
            raise CheckpointError(f"{folder} is damaged: {name} has {path.stat().st_size} bytes instead of {size}.")
        if digest_files(folder, [path])[name][1] != digest:
            raise CheckpointError(f"{folder} is damaged: the checksum of {name} does not match.")
    return manifest


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first. They are not verified."""
    return sorted(folder.glob("step=*.ckpt"), reverse=True)


def newest_valid(folder: Path) -> tuple[Path | None, list[CheckpointError]]:
    """The newest valid checkpoint, and the errors of newer ones."""
    errors = []
    for path in find_checkpoints(folder):
        try:
            verify(path)
        except CheckpointError as error:
            errors.append(error)
        else:
            return path, errors
    return None, errors


def differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key is X instead of Y` for each key with the value X in `a` and Y in `b`."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differing(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key} is {left} instead of {right}")
    return found
