"""Writes prepared folders of many small shards without `prepare`, and returns their molecules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.shard_folder import describe_shards
from nemo_cmim.store.shards import write_shard
from nemo_cmim.tokenizers import shipped_vocabulary

COUNTS = (7, 1, 0, 130, 64, 2, 96)  # molecules of the shards; their numbers have gaps
NUMBERS = (3, 4, 5, 17, 18, 900, 99_999)


def write_sharded(folder: Path, counts: tuple[int, ...] = COUNTS, numbers: tuple[int, ...] = NUMBERS) -> list[list[int]]:
    """Writes a training split of these shards. Returns the tokens of its molecules in order; no two molecules are the same."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    molecules: list[list[int]] = []
    names = [f"train-{number:05}" for number in numbers]
    for name, count in zip(names, counts):
        rows = [[6 + len(molecules) % 500, *rng.integers(6, 523, rng.integers(2, 40)).tolist()] for _ in range(count)]
        rows = [[*row, 6 + (len(molecules) + i) % 500, 6 + (len(molecules) + i) // 500] for i, row in enumerate(rows)]
        tokens = np.array([token for row in rows for token in row], np.int64)
        write_shard(folder / name, tokens, np.array([len(row) for row in rows], np.int64), len(shipped_vocabulary()))
        molecules += rows
    describe_shards(folder, list(zip(names, counts)), Counter(map(len, molecules)), checksums=True)
    return molecules
