"""Reads and writes the members of a model file (`.nemo`), a tar archive or a folder, and checks them against its manifest.

`manifest.json` is the first member. It holds the size and the SHA-256 of every other member, and a SHA-256 of itself:

    {"format": "nemo_cmim model 2", "members": {NAME: {"bytes": 123, "sha256": HEX, "optional": false}, ...}, "sha256": HEX}

All members are checked before any of them is parsed. An optional member is one without which a model computes the same vectors. A reader
that does not know a member checks it and ignores it if it is optional, and raises an error if it is not. A new member therefore needs no
new format: it is added to `NEMO`. Version 1 of the format has no manifest.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import CheckpointError
from ..files import atomic_write
from ..generation import DENSITY
from ..observed import PROPERTIES
from ..version import __version__

__all__ = ["CARD", "CONFIG", "MANIFEST", "NEMO", "VOCABULARY", "WEIGHTS", "ArchiveLayout", "read_members", "write_members"]

CONFIG, WEIGHTS, VOCABULARY, CARD = "model_config.yaml", "model_weights.safetensors", "vocabulary.txt", "model_card.md"
MANIFEST = "manifest.json"
_MAX_MEMBERS = 1000
_MAX_COMPRESSION = 20  # ratio; weights of a trained network hardly compress at all
_PICKLES = (".ckpt", ".pt", ".pth", ".pkl", ".distcp")
_FIX = "Copy or export the file again."


class ArchiveLayout(NamedTuple):
    """The members of a kind of file.

    Attributes:
        format: Name and version in the manifest.
        noun: The kind of file, for error messages.
        max_bytes: Largest size of each known member, the manifest included.
        required: Members without which a file is incomplete.
        optional: Members without which the predictions are the same.
        update: What to do with a file of another format, for the error message.
        is_public: Whether others may read a file, whatever the umask.
    """

    format: str
    noun: str
    max_bytes: Mapping[str, int]
    required: Sequence[str]
    optional: Sequence[str] = ()
    update: str = "Update nemo_cmim."
    is_public: bool = False


NEMO = ArchiveLayout(
    "nemo_cmim model 2",
    "a model of nemo_cmim",
    {MANIFEST: 2**20, CONFIG: 2**16, WEIGHTS: 2**36, VOCABULARY: 2**24, CARD: 2**20, PROPERTIES: 2**24, DENSITY: 2**30},
    (CONFIG, WEIGHTS, VOCABULARY),
    (CARD, PROPERTIES, DENSITY),
    "Update nemo_cmim; convert a training checkpoint with `nemo-cmim export`.",
    is_public=True,
)


class _Digest(NamedTuple):
    """Size in bytes and SHA-256 of a member."""

    size: int
    sha256: str


class _Manifest(NamedTuple):
    """Digests of all members, and the names of optional ones."""

    digests: dict[str, _Digest]
    optional: set[str]


def write_members(path: Path, members: Mapping[str, bytes], layout: ArchiveLayout = NEMO) -> None:
    """Writes an archive of these members, with a manifest, atomically. Equal members give equal bytes.

    Args:
        path: The file to write. Its folder is created if it does not exist.
        members: Content of each member by name, without the manifest.
        layout: The kind of file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as staging:
        with tarfile.open(staging, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in {MANIFEST: _manifest_of(members, layout), **members}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        if layout.is_public:
            staging.chmod(0o644)


def read_members(path: Path, data: bytes | None = None, layout: ArchiveLayout = NEMO) -> dict[str, bytes]:
    """Reads the known members of an archive or folder, and checks all members against the manifest.

    A file in a folder is not a member if this version does not know its name and the manifest does not list it.

    Args:
        path: The file or folder.
        data: The bytes of the file, if they have been read already; `path` is then used in error messages only.
        layout: The kind of file.

    Returns:
        Content by name. `MANIFEST` is not among the names if the model file has version 1: nothing was checked.

    Raises:
        CheckpointError: If the file is not a model file or was written by another project, if it has an implausible size, or if a member
            is missing, is not in the manifest, differs from it, or is required and unknown to this version.
    """
    is_folder = data is None and path.is_dir()
    members, others = (_read_folder(path, layout), {}) if is_folder else _read_archive(path, data, layout)
    if MANIFEST in members:
        manifest = _parse_manifest(members[MANIFEST], path, layout)
        if is_folder:
            others = _digests_of_files(path, manifest.digests.keys() - layout.max_bytes.keys())
        known = {name: _digest_of(io.BytesIO(content)) for name, content in members.items() if name != MANIFEST}
        _verify(manifest, known | others, path, layout)
    missing = [name for name in layout.required if name not in members]
    if missing:
        raise CheckpointError(f"{path} does not contain {', '.join(missing)}: it is not {layout.noun}, or it is incomplete.")
    return members


def _manifest_of(members: Mapping[str, bytes], layout: ArchiveLayout) -> bytes:
    entries = {}
    for name, data in members.items():
        digest = _digest_of(io.BytesIO(data))
        entries[name] = {"bytes": digest.size, "sha256": digest.sha256, "optional": name in layout.optional}
    content = {"format": layout.format, "members": entries}
    return json.dumps({**content, "sha256": _digest_of_json(content)}, indent=1).encode()


def _parse_manifest(content: bytes, path: Path, layout: ArchiveLayout) -> _Manifest:
    """The manifest, after a check of its own checksum."""
    try:
        manifest = json.loads(content)
        if (found := manifest.get("format")) != layout.format:
            raise CheckpointError(
                f"{path} is not {layout.noun}, or a newer version wrote it: its {MANIFEST} has the format {found!r}, but nemo_cmim "
                f"{__version__} reads {layout.format!r}. {layout.update}"
            )
        if manifest.pop("sha256") != _digest_of_json(manifest):
            raise CheckpointError(f"{path} is damaged: the checksum of {MANIFEST} does not match. {_FIX}")
        entries = manifest["members"]
        return _Manifest(
            {name: _Digest(entry["bytes"], entry["sha256"]) for name, entry in entries.items()},
            {name for name, entry in entries.items() if entry["optional"]},
        )
    except CheckpointError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {MANIFEST} cannot be read ({type(error).__name__}: {error}). {_FIX}") from error


def _verify(manifest: _Manifest, found: Mapping[str, _Digest], path: Path, layout: ArchiveLayout) -> None:
    """Raises an error unless the members are those of the manifest."""
    for name in sorted(manifest.digests.keys() | found.keys()):
        expected = manifest.digests.get(name)
        if expected is None:
            raise CheckpointError(
                f"{path} contains {name!r}, which is not in its {MANIFEST}: it was added after the model was written. Remove it."
            )
        if name not in found:
            raise CheckpointError(f"{path} is incomplete: {name} is missing. {_FIX}")
        if found[name].size != expected.size:
            raise CheckpointError(f"{path} is damaged: {name} has {found[name].size} bytes instead of {expected.size}. {_FIX}")
        if found[name] != expected:
            raise CheckpointError(
                f"{path} is damaged: the checksum of {name} does not match. It was changed after the model was written. {_FIX}"
            )
        if name not in layout.max_bytes and name not in manifest.optional:
            raise CheckpointError(
                f"{path} contains {name!r}, which this version of nemo_cmim ({__version__}) cannot read. A newer version wrote the file: "
                "update nemo_cmim."
            )


def _digest_of(stream: IO[bytes]) -> _Digest:
    size, digest = 0, hashlib.sha256()
    while block := stream.read(2**20):
        size += len(block)
        digest.update(block)
    return _Digest(size, digest.hexdigest())


def _digest_of_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_folder(folder: Path, layout: ArchiveLayout) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in layout.max_bytes if (folder / name).is_file()}


def _digests_of_files(folder: Path, names: Container[str]) -> dict[str, _Digest]:
    digests = {}
    for file in folder.iterdir():
        if file.name in names and file.is_file():
            with file.open("rb") as stream:
                digests[file.name] = _digest_of(stream)
    return digests


def _read_archive(path: Path, data: bytes | None, layout: ArchiveLayout) -> tuple[dict[str, bytes], dict[str, _Digest]]:
    """The content of known members of a tar file, and the digests of others, whatever their paths. Folders are skipped."""
    members: dict[str, bytes] = {}
    others: dict[str, _Digest] = {}
    try:
        size = path.stat().st_size if data is None else len(data)
        with tarfile.open(path, "r:*", fileobj=None if data is None else io.BytesIO(data)) as archive:
            for count, entry in enumerate(archive, 1):
                name = entry.name.removeprefix("./")
                _check_entry(entry, name, count, members, path, size, layout)
                member = archive.extractfile(entry) if entry.isreg() else None
                if name in layout.max_bytes:
                    assert member is not None, "known members are regular"
                    members[name] = member.read()
                    if len(members[name]) != entry.size:
                        raise CheckpointError(f"{path} is truncated inside {name}. {_FIX}")
                elif not entry.isdir():
                    others[name] = _digest_of(member or io.BytesIO())
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not {layout.noun}, or it is damaged ({error}). {_FIX}") from error
    return members, others


def _check_entry(
    entry: tarfile.TarInfo, name: str, count: int, members: Container[str], path: Path, size: int, layout: ArchiveLayout
) -> None:
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
    if name not in layout.max_bytes:
        return
    if not entry.isreg():
        raise CheckpointError(
            f"{path}: the member {name} is a link or another special member, not a file. The archive is corrupt or malicious."
        )
    if entry.size > layout.max_bytes[name]:
        raise CheckpointError(
            f"{path}: the member {name} has {entry.size:,} bytes, more than the maximum of {layout.max_bytes[name]:,}."
        )
    if name in members:
        raise CheckpointError(f"{path} contains the member {name} twice.")
