"""Makes token stores without `prepare`, for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_cmim.files import sha256_of
from nemo_cmim.store.manifest import StoreManifest
from nemo_cmim.tokenizers import shipped_vocabulary

__all__ = ["describe_shards"]


def describe_shards(folder: Path, shards: Sequence[tuple[str, int]], lengths: Mapping[int, int], *, checksums: bool) -> None:
    """Writes the vocabulary and the manifest for the shards of a training split.

    Args:
        folder: Folder of the shards.
        shards: Name and number of molecules of each shard, in order.
        lengths: Number of molecules by number of tokens.
        checksums: Whether to write the SHA-256 of each file. Without them the folder cannot be verified, but they take time.
    """
    vocabulary = shipped_vocabulary()
    vocabulary.save(folder / "vocabulary.txt")
    train: dict[str, Any] = {
        "molecules": sum(molecules for _, molecules in shards),
        "tokens": sum(length * count for length, count in lengths.items()),
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        "shards": [{"name": name, "molecules": molecules} for name, molecules in shards],
    }
    empty = {"molecules": 0, "tokens": 0, "lengths": {}, "shards": []}
    StoreManifest(
        versions={},
        settings={},
        vocabulary={"size": len(vocabulary), "fingerprint": vocabulary.fingerprint},
        counts={},
        rejected={},
        unknown_tokens={},
        tokens={},
        inputs=[],
        tranches={},
        splits={"train": train, "valid": empty, "test": empty},
        properties=None,
        files={
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path) if checksums else ""}
            for path in sorted(folder.iterdir())
        },
    ).save(folder)
