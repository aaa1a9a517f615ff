"""Second stage of `prepare`: one range of hashes from all chunks, without duplicates, becomes a shard of each split.

The molecules of a shard are in the order of their hashes, so a shard depends on which molecules there are, and not on how they
were spread over files. Two different molecules share a 128-bit digest with a probability of 10**-19 among 10 billion.
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
from .chunks import Job, open_rows, planned, take_ragged, write_table
from .splits import Cuts, first_not_below
from .workspace import FINISHED

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DUPLICATE", "ShardRange", "count_distinct", "distinct_hashes", "merge_shard", "ranges"]

DUPLICATE = "duplicate"


class ShardRange(NamedTuple):
    """The n-th part of the hashes.

    Attributes:
        number: n.
        start: the first hash of the part.
        stop: the hash after the last, at most 2**64.
    """

    number: int
    start: int
    stop: int


def ranges(count: int) -> list[ShardRange]:
    """Cuts the 2**64 hashes into parts of equal size."""
    edges = [(number << 64) // count for number in range(count + 1)]
    return [ShardRange(number, edges[number], edges[number + 1]) for number in range(count)]


class _Merged(NamedTuple):
    """Rows of all chunks in a range, in ascending order of digest; of equal ones, the first of the inputs comes first."""

    high: NDArray[np.uint64]
    chunk: NDArray[np.int32]
    line: NDArray[np.int64]
    is_first: NDArray[np.bool_]  # the others are duplicates of the one before them
    order: NDArray[np.int64]  # rows of `tokens` and `lengths`
    tokens: NDArray[np.integer]
    lengths: NDArray[np.int64]


def distinct_hashes(part: ShardRange, job: Job) -> NDArray[np.uint64]:
    """The hashes of a range's different molecules, ascending."""
    merged = _merge(part, job)
    return merged.high[merged.is_first]


def count_distinct(part: ShardRange, job: Job) -> None:
    """Leaves the number of different molecules in a range."""
    job.save("distinct", part.number, {"molecules": len(distinct_hashes(part, job))})


def merge_shard(part: ShardRange, job: Job, cuts: Cuts) -> None:
    """Writes the shards of a range, one for each split that has molecules in it, and leaves their counts and the duplicates."""
    merged = _merge(part, job)
    vocabulary = _vocabulary_size(job)
    first = np.flatnonzero(merged.is_first)
    shards = {}
    for split, place in cuts.ranges(merged.high[first]).items():
        rows = merged.order[first[place]]
        if len(rows):
            tokens, _ = take_ragged(merged.tokens, merged.lengths, rows)
            shards[split] = _write_shard(job, f"{split}-{part.number:05d}", tokens, merged.lengths[rows], vocabulary)
    _write_duplicates(part, job, merged)
    job.save("shards", part.number, {"shards": shards})


def _merge(part: ShardRange, job: Job) -> _Merged:
    high, low, line, chunk, tokens, lengths = [], [], [], [], [], []
    for number in range(len(planned(job))):
        rows = open_rows(job.result("chunks", number, "arrow"))
        start, stop = (first_not_below(rows.high, edge) for edge in (part.start, part.stop))
        high.append(rows.high[start:stop].copy())  # a view keeps its chunk mapped, and Linux maps 65,530 files
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
    """The files of one shard, and what the manifest says of it."""
    files = {}
    with tempfile.TemporaryDirectory(dir=job.folder / "shards") as staging:  # a task that was given up may still be at it elsewhere
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


def _write_duplicates(part: ShardRange, job: Job, merged: _Merged) -> None:
    """For each duplicate its chunk and line, and those of the molecule that was kept; in the order of the inputs."""
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
    write_table(job.result("shards", part.number, "duplicates.arrow"), {name: column[order] for name, column in columns.items()})
