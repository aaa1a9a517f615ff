"""Model files that tests put together: a transcription of the format of `inference/model_archive.py`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Container
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def members(path: Path) -> dict[str, bytes]:
    """The members of an archive without its manifest."""
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.name != MANIFEST}  # type: ignore[union-attr]


def manifest(content: dict[str, bytes], optional: Container[str] = ("model_card.md", "properties.json"), **changes: Any) -> bytes:
    """A manifest whose checksums are right; `changes` replaces fields of it."""
    entries = {
        name.removeprefix("./"): {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "optional": name in optional}
        for name, data in content.items()
    }
    fields = {"format": "nemo_cmim model 2", "members": entries, **changes}
    return json.dumps({**fields, "sha256": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()}).encode()


def pack(path: Path, content: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w") -> Path:
    """Writes an archive of version 2, unless `content` has its own manifest. The entries `extra`, filled with x, come first."""
    content = content if MANIFEST in content else {MANIFEST: manifest(content), **content}
    return pack_as_is(path, content, *extra, mode=mode)


def pack_as_is(path: Path, content: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w") -> Path:
    """Writes an archive without a manifest of its own."""
    with tarfile.open(path, mode) as archive:
        for entry in extra:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def unpack(folder: Path, content: dict[str, bytes]) -> Path:
    """Writes a folder with these files."""
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder
