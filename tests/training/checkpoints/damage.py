"""Ways to damage a checkpoint. Each returns the part of the error message that names the damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["DAMAGES", "flip_a_byte"]


def flip_a_byte(folder: Path) -> str:
    shard = next((folder / "tensors").glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return f"the checksum of tensors/{shard.name} does not match"


def truncate_a_shard(folder: Path) -> str:
    shard = next((folder / "tensors").glob("*.distcp"))
    os.truncate(shard, 1000)
    return f"{shard.name} has 1000 bytes instead of "


def remove_the_state(folder: Path) -> str:
    (folder / "state.pt").unlink()
    return "state.pt is missing"


def remove_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "it does not contain manifest.json"


def corrupt_the_manifest(folder: Path) -> str:
    content = bytearray((folder / "manifest.json").read_bytes())
    content[20] |= 0x80
    (folder / "manifest.json").write_bytes(content)
    return "manifest.json cannot be read"


def empty_the_manifest(folder: Path) -> str:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | {"files": {}}))
    return "the checksum of manifest.json does not match"


DAMAGES = [flip_a_byte, truncate_a_shard, remove_the_state, remove_the_manifest, corrupt_the_manifest, empty_the_manifest]
