"""Third stage of `prepare`: one hash range of all chunks, without duplicates, becomes a shard of each split.

The molecules of a shard are sorted by their hashes, so a shard depends on the set of molecules, and not on how they are distributed
over files. The probability that two of 10 billion different molecules have the same 128-bit digest is 10**-19.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..files import fsync, sha256_of
from ..store.shards import write_shard
from ..tokenizers import Vocabulary
from .arrow import write_arrow
from .chunks import open_rows, planned_chunks, take_ragged
from .job import Job
from .splits import SplitBounds, place_of
from .workspace import FINISHED

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DUPLICATE",
    "HashRange",
    "ShardEntry",
    "count_distinct",
    "distinct_hashes",
    "hash_ranges",
    "merge_range",
    "shards_of_range",
]

DUPLICATE = "duplicate"


class HashRange(NamedTuple):
    """An interval of the hashes, whose molecules one task merges.

    Attributes:
        number: Number of the range, in ascending order of the hashes.
        start: First hash.
        stop: Hash after the last, at most 2**64.
    """

    number: int
    start: int
    stop: int


def hash_ranges(count: int) -> list[HashRange]:
    """Divides the 2**64 hashes into ranges of equal size."""
    edges = [(number << 64) // count for number in range(count + 1)]
    return [HashRange(number, edges[number], edges[number + 1]) for number in range(count)]


class ShardEntry(NamedTuple):
    """A shard that `merge_range` wrote.

    Attributes:
        split: Its split.
        name: Name of its files, without suffix.
        counts: What `merge_range` saved: `molecules`, `lengths`, `tokens` and `files`.
    """

    split: str
    name: str
    counts: dict[str, Any]


def shards_of_range(number: int, job: Job) -> list[ShardEntry]:
    """The shards of a hash range: at most one for each split."""
    found = job.load("shards", number)["shards"].items()
    return [ShardEntry(split, next(iter(entry["files"])).removesuffix(".bin"), entry) for split, entry in found]


class _Merged(NamedTuple):
    """Rows of all chunks in a hash range, in ascending order of digest. Equal digests are in the order of the inputs."""

    high: NDArray[np.uint64]
    chunk: NDArray[np.int32]
    line: NDArray[np.int64]
    is_first: NDArray[np.bool_]  # the others are duplicates of an earlier row
    order: NDArray[np.int64]  # rows of `tokens` and `lengths`
    tokens: NDArray[np.integer]
    lengths: NDArray[np.int64]


def distinct_hashes(hash_range: HashRange, job: Job) -> NDArray[np.uint64]:
    """The hashes of the distinct molecules in a hash range, ascending."""
    merged = _merge(hash_range, job)
    return merged.high[merged.is_first]


def count_distinct(hash_range: HashRange, job: Job) -> None:
    """Saves the number of distinct molecules in a hash range."""
    job.save("distinct", hash_range.number, {"molecules": len(distinct_hashes(hash_range, job))})


def merge_range(hash_range: HashRange, job: Job, bounds: SplitBounds) -> None:
    """Writes a shard for each split that has molecules in a hash range. Saves their counts and the duplicates."""
    merged = _merge(hash_range, job)
    vocabulary = _vocabulary_size(job)
    first = np.flatnonzero(merged.is_first)
    shards = {}
    for split, places in bounds.slices(merged.high[first]).items():
        rows = merged.order[first[places]]
        if len(rows):
            tokens, _ = take_ragged(merged.tokens, merged.lengths, rows)
            shards[split] = _write_shard(job, f"{split}-{hash_range.number:05d}", tokens, merged.lengths[rows], vocabulary)
    _write_duplicates(hash_range, job, merged)
    job.save("shards", hash_range.number, {"shards": shards})


def _merge(hash_range: HashRange, job: Job) -> _Merged:
    high, low, line, chunk, tokens, lengths = [], [], [], [], [], []
    for number in range(len(planned_chunks(job))):
        rows = open_rows(job.result("chunks", number, "arrow"))
        start, stop = (place_of(rows.high, edge) for edge in (hash_range.start, hash_range.stop))
        high.append(
            rows.high[start:stop].copy()
        )  # a view would keep the file of its chunk mapped, and Linux maps at most 65,530 files
        low.append(rows.low[start:stop].copy())
        line.append(rows.line[start:stop].copy())
        chunk.append(np.full(stop - start, number, np.int32))
        tokens.append(rows.tokens[rows.offsets[start] : rows.offsets[stop]].copy())
        lengths.append(np.diff(rows.offsets[start : stop + 1]))
    all_high, all_low = np.concatenate(high), np.concatenate(low)
    order = np.lexsort((all_low, all_high))  # stable: rows of equal digests stay in the order of the inputs
    sorted_high, sorted_low = all_high[order], all_low[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (sorted_high[1:] != sorted_high[:-1]) | (sorted_low[1:] != sorted_low[:-1])
    return _Merged(
        sorted_high,
        np.concatenate(chunk)[order],
        np.concatenate(line)[order],
        is_first,
        order,
        np.concatenate(tokens),
        np.concatenate(lengths),
    )


@functools.lru_cache(maxsize=1)
def _vocabulary_size(job: Job) -> int:
    return len(Vocabulary.load(job.vocabulary))


def _write_shard(job: Job, name: str, tokens: NDArray[np.integer], lengths: NDArray[np.int64], vocabulary: int) -> dict[str, Any]:
    """Writes the files of one shard, and returns its entry of the manifest."""
    files = {}
    with tempfile.TemporaryDirectory(
        dir=job.folder / "shards"
    ) as staging:  # a worker that lost contact may still be writing the same shard
        for path in write_shard(Path(staging) / name, tokens, lengths, vocabulary):
            fsync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            path.replace(job.folder / FINISHED / path.name)
    counts, uses = np.bincount(lengths), np.bincount(tokens)
    return {
        "molecules": len(lengths),
        "lengths": {str(length): int(counts[length]) for length in np.flatnonzero(counts)},
        "tokens": {str(token): int(uses[token]) for token in np.flatnonzero(uses)},
        "files": files,
    }


def _write_duplicates(hash_range: HashRange, job: Job, merged: _Merged) -> None:
    """Writes chunk and line of each duplicate and of the molecule that is kept, in the order of the inputs."""
    rows = np.flatnonzero(~merged.is_first)
    firsts = np.flatnonzero(merged.is_first)
    originals = firsts[np.searchsorted(firsts, rows) - 1]
    order = np.lexsort((merged.line[rows], merged.chunk[rows]))
    columns: dict[str, NDArray[Any]] = {
        "chunk": merged.chunk[rows],
        "line": merged.line[rows],
        "first_chunk": merged.chunk[originals],
        "first_line": merged.line[originals],
    }
    path = job.result("shards", hash_range.number, "duplicates.arrow")
    write_arrow(path, {name: column[order] for name, column in columns.items()})
