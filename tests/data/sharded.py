"""Prepared folders of many small shards, written without `prepare`, and the truth about them."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from pathlib import Path

import numpy as np

from nemo_cmim.data.manifest import Manifest
from nemo_cmim.tokenizers import shipped_vocabulary

COUNTS = (7, 1, 0, 130, 64, 2, 96)  # molecules of the shards; their numbers have gaps
NUMBERS = (3, 4, 5, 17, 18, 900, 99_999)


def write_sharded(folder: Path, counts: tuple[int, ...] = COUNTS, numbers: tuple[int, ...] = NUMBERS) -> list[list[int]]:
    """Writes a training split of these shards, and gives the tokens of its molecules in order: no two are the same."""
    folder.mkdir(parents=True)
    vocabulary, rng = shipped_vocabulary(), np.random.default_rng(0)
    vocabulary.save(folder / "vocabulary.txt")
    molecules, shards = [], []
    for number, count in zip(numbers, counts):
        rows = [[6 + len(molecules) % 500, *rng.integers(6, 523, rng.integers(2, 40)).tolist()] for _ in range(count)]
        rows = [[*row, 6 + (len(molecules) + i) % 500, 6 + (len(molecules) + i) // 500] for i, row in enumerate(rows)]
        lengths = np.array([len(row) for row in rows], "<i4")
        name = f"train-{number:05}"
        np.array([token for row in rows for token in row], "<u2").tofile(folder / f"{name}.bin")
        parts = lengths, 2 * (np.cumsum(lengths, dtype="<i8") - lengths), np.arange(count + 1, dtype="<i8")
        header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, count, count + 1)
        (folder / f"{name}.idx").write_bytes(header + b"".join(part.tobytes() for part in parts))
        shards.append({"name": name, "molecules": count})
        molecules += rows
    sizes = Counter(len(row) for row in molecules)
    train = {
        "molecules": len(molecules),
        "tokens": sum(map(len, molecules)),
        "lengths": {str(k): n for k, n in sorted(sizes.items())},
    }
    empty = {"molecules": 0, "tokens": 0, "lengths": {}, "shards": []}
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    Manifest(
        versions={},
        settings={},
        vocabulary={"size": len(vocabulary), "fingerprint": vocabulary.fingerprint},
        counts={},
        rejected={},
        unknown_tokens={},
        tokens={},
        inputs=[],
        tranches={},
        splits={"train": {**train, "shards": shards}, "valid": empty, "test": empty},
        files={name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()},
    ).save(folder)
    return molecules
