"""Second stage of `prepare`: inputs are cut into chunks, and the molecules of each chunk are curated into one sorted file.

Chunks are consecutive lines, and independent of each other: they can be curated on any machine, in any order. The rows of a chunk's
file are sorted by the hashes of the molecules, so that the third stage finds the rows of one hash range in one place.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..files import atomic_write
from ..tables.layout import Layout, RawLine
from ..tables.readers import read_lines
from ..tokenizers import SmilesTokenizer, Vocabulary
from ..zinc.tranches import Tranche
from .arrow import open_arrow, write_arrow
from .curate import UNKNOWN_TOKEN, Curated, curate, reason_of
from .job import Job
from .scan import ScannedInput, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chunk", "Rows", "curate_chunk", "open_rows", "plan_chunks", "planned_chunks", "read_chunk", "take_ragged"]

_PLAN = "chunks.json"
_BATCH = 1000  # lines that RDKit processes at a time
_ROWS_AT_ONCE = 1 << 16


class Chunk(NamedTuple):
    """Consecutive lines of an input.

    Attributes:
        number: Number of the chunk, in the order of the inputs.
        input: Number of the input.
        name: Path of the input, as the user gave it.
        path: Absolute path of the input.
        path_of_lines: File to read the lines from: `path`, or a decompressed copy.
        layout: How lines are read.
        line_number: Line number of the first line.
        offset: Offset of the first line in `path_of_lines`.
        lines: Number of lines.
        size: Size of the input, bytes.
        modified: Modification time of the input, ns.
    """

    number: int
    input: int
    name: str
    path: str
    path_of_lines: str
    layout: Layout
    line_number: int
    offset: int
    lines: int
    size: int
    modified: int


def plan_chunks(job: Job, inputs: Sequence[ScannedInput], names: Sequence[str]) -> list[Chunk]:
    """Cuts the inputs with these names into chunks, up to the limit of lines, and saves the chunks for the tasks."""
    chunks: list[Chunk] = []
    left = sum(one.lines for one in inputs) if job.settings.limit is None else job.settings.limit
    for number, (found, name) in enumerate(zip(inputs, names)):
        path = Path(name).absolute()
        paths = (name, str(path), str(found.path_of_lines(job, number, path)))
        for place, (line_number, offset) in enumerate(found.starts):
            lines = min(job.settings.piece_lines, found.lines - place * job.settings.piece_lines, left)
            if lines > 0:
                where = (*paths, found.layout, line_number, offset, lines)
                chunks.append(Chunk(len(chunks), number, *where, found.bytes, found.modified))
                left -= lines
    with atomic_write(job.folder / _PLAN) as staging:
        staging.write_text(json.dumps(chunks), encoding="utf-8")
    return chunks


@functools.lru_cache(maxsize=1)
def planned_chunks(job: Job) -> list[Chunk]:
    """Reads the chunks that `plan_chunks` saved."""
    rows = json.loads((job.folder / _PLAN).read_text(encoding="utf-8"))
    return [Chunk(*row)._replace(layout=Layout(*row[Chunk._fields.index("layout")])) for row in rows]


def read_chunk(chunk: Chunk) -> Iterator[RawLine]:
    """Yields the lines of a chunk.

    Raises:
        DataError: If the file is damaged, or the input has changed since it was scanned.
    """
    if state_of(Path(chunk.path)) != (chunk.size, chunk.modified):
        raise DataError(
            f"{chunk.path} was changed while it was being prepared. Do not change the inputs, and start again with --restart."
        )
    return itertools.islice(read_lines(Path(chunk.path_of_lines), chunk.layout, chunk.line_number, chunk.offset), chunk.lines)


def curate_chunk(chunk: Chunk, job: Job) -> None:
    """Curates the lines of a chunk. Saves the molecules it keeps, the lines it rejects, and counts."""
    tokenizer = _tokenizer(job.vocabulary)
    tranche = Tranche.of_file(chunk.name) if job.settings.trust_tranches else None
    logp_is_known = tranche is not None and job.settings.rules.logp_is_known(tranche.logp)
    lines, curated_batches, kept, rejected = read_chunk(chunk), [], [], dict[int, str]()
    reasons, unknown = Counter[str](), Counter[str]()
    while batch := list(itertools.islice(lines, _BATCH)):
        good = [line for line in batch if not line.problem]
        curated = curate([line.smiles for line in good], job.settings.rules, tokenizer, logp_is_known=logp_is_known)
        curated_batches.append(curated)
        kept.append(np.array([line.line_number for line in good], dtype=np.int64)[curated.kept])
        reasons.update(reason_of(line.problem) for line in batch if line.problem)
        rejected.update((line.line_number, line.problem) for line in batch if line.problem)
        for index, rejection in curated.rejected.items():
            rejected[good[index].line_number] = str(rejection)
            reasons[rejection.reason] += 1
            if rejection.reason == UNKNOWN_TOKEN:
                unknown.update(rejection.found.split(" "))
    _write_rows(job.result("chunks", chunk.number, "arrow"), np.concatenate(kept), curated_batches)
    _write_rejected(job.result("chunks", chunk.number, "rejected.arrow"), rejected)
    job.save("chunks", chunk.number, {"kept": sum(map(len, kept)), "rejected": dict(reasons), "unknown_tokens": dict(unknown)})


@functools.lru_cache(maxsize=1)  # the name of a job's folder is a hash of all that the job depends on: see `workspace`
def _tokenizer(vocabulary: Path) -> SmilesTokenizer:
    return SmilesTokenizer(Vocabulary.load(vocabulary))


class Rows(NamedTuple):
    """M molecules of a chunk in ascending order of their digests. Among equal digests, the earlier line comes first.

    Attributes:
        high: uint64 [M], first half of the digest: the hash, which determines shard and split.
        low: uint64 [M], second half.
        line: int64 [M], line numbers.
        tokens: Token ids of all rows, concatenated.
        offsets: int64 [M + 1]. Row i has the ids `tokens[offsets[i] : offsets[i + 1]]`.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    line: NDArray[np.int64]
    tokens: NDArray[np.integer]
    offsets: NDArray[np.int64]


def _write_rows(path: Path, lines: NDArray[np.int64], batches: list[Curated]) -> None:
    import pyarrow

    digests = np.concatenate([batch.digests for batch in batches])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: lines of equal digests stay in their order
    lengths = np.concatenate([batch.lengths for batch in batches])
    tokens, offsets = take_ragged(np.concatenate([batch.tokens for batch in batches]), lengths, order)
    ids = pyarrow.array(tokens if tokens.size and tokens.max() > 0xFFFF else tokens.astype(np.uint16))
    columns = {
        "high": digests[order, 0],
        "low": digests[order, 1],
        "line": lines[order],
        "tokens": pyarrow.LargeListArray.from_arrays(offsets, ids),
    }
    write_arrow(path, columns)


def open_rows(path: Path) -> Rows:
    """Memory-maps the molecules of a chunk."""
    columns = open_arrow(path)
    tokens = columns["tokens"]
    high, low, line = (columns[name].to_numpy() for name in ("high", "low", "line"))
    return Rows(high, low, line, tokens.values.to_numpy(), tokens.offsets.to_numpy())


def take_ragged(
    values: NDArray[Any], lengths: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Selects rows of a ragged array.

    Args:
        values: All rows, concatenated.
        lengths: Length of each row.
        rows: int64 [M], indices of the rows to take, in this order.

    Returns:
        The taken rows, concatenated; and their offsets, int64 [M + 1].
    """
    starts = np.cumsum(lengths) - lengths
    offsets = np.concatenate([[0], np.cumsum(lengths[rows])])
    taken = np.empty(offsets[-1], values.dtype)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[begin : begin + _ROWS_AT_ONCE]
        first, stop = offsets[begin], offsets[begin + len(some)]
        taken[first:stop] = values[
            np.arange(first, stop) + np.repeat(starts[some] - offsets[begin : begin + len(some)], lengths[some])
        ]
    return taken, offsets


def _write_rejected(path: Path, rejected: dict[int, str]) -> None:
    import pyarrow

    lines = sorted(rejected)
    reasons = pyarrow.array([rejected[line] for line in lines], pyarrow.string())
    write_arrow(path, {"line": pyarrow.array(lines, pyarrow.int64()), "reason": reasons})
