"""First stage of `prepare`: inputs are cut into chunks, and the molecules of each chunk are curated into one sorted file.

A chunk is a run of lines, so chunks can be worked on anywhere and in any order. The rows of a chunk's file are in the order of
the molecules' hashes: what the second stage needs of it, one range of hashes, lies in one place.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..files import atomic_write, sha256_of
from ..store.token_store import VOCABULARY
from ..tables.layout import Layout, RawLine
from ..tables.readers import find_layout, find_starts, read_lines
from ..tokenizers import SmilesTokenizer, Vocabulary
from ..zinc.tranches import Tranche
from .curate import UNKNOWN_TOKEN, Curated, curate
from .settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Chunk",
    "Job",
    "Rows",
    "Survey",
    "curate_chunk",
    "open_rows",
    "open_table",
    "plan_chunks",
    "planned",
    "read_chunk",
    "state_of",
    "survey",
    "take_ragged",
    "write_table",
]

_PLAN = "chunks.json"
_BATCH = 1000  # lines that RDKit processes at a time
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Job:
    """What all tasks of one `prepare` know. Tasks may run on any machine that sees the folder and the inputs.

    Attributes:
        folder: Where the tasks leave their results.
        settings: What to do.
    """

    folder: Path
    settings: Settings

    @property
    def vocabulary(self) -> Path:
        """The vocabulary of the tokens."""
        return self.folder / VOCABULARY

    def result(self, stage: str, number: int, suffix: str = "json") -> Path:
        """The file that a task leaves. Its .json file comes last: the task is done when it is there."""
        return self.folder / stage / f"{number:06d}.{suffix}"

    def save(self, stage: str, number: int, content: dict[str, Any]) -> None:
        """Leaves the .json file of a task."""
        with atomic_write(self.result(stage, number)) as path:
            path.write_text(json.dumps(content), encoding="utf-8")

    def load(self, stage: str, number: int) -> dict[str, Any]:
        """Reads the .json file of a task."""
        content: dict[str, Any] = json.loads(self.result(stage, number).read_text(encoding="utf-8"))
        return content


class Survey(NamedTuple):
    """What a look through an input says of it.

    Attributes:
        bytes: its size.
        modified: when it was written, in ns.
        sha256: checksum.
        layout: how its lines are to be read.
        starts: line number and offset of each chunk's first line.
        lines: lines of all chunks.
    """

    bytes: int
    modified: int
    sha256: str
    layout: Layout
    starts: list[tuple[int, int]]
    lines: int


class Chunk(NamedTuple):
    """A run of lines of an input.

    Attributes:
        number: among all chunks, in the order of the inputs.
        input: number of the input.
        name: of the input, as the user gave it.
        path: where the input lies.
        layout: how its lines are to be read.
        line_number: of its first line.
        offset: of its first line.
        lines: how many.
        size: of the input, in bytes.
        modified: when the input was written, in ns.
    """

    number: int
    input: int
    name: str
    path: str
    layout: Layout
    line_number: int
    offset: int
    lines: int
    size: int
    modified: int


def survey(item: tuple[int, str], job: Job) -> None:
    """Looks through one input, to its end, and leaves a `Survey` or what is wrong with the file.

    Args:
        item: Number and path of the input.
        job: The job.
    """
    number, path = item[0], Path(item[1])
    try:
        layout = find_layout(path, job.settings.column)
        size, modified = state_of(path)
        starts, lines = find_starts(path, layout, job.settings.piece_lines, job.settings.limit)
        found = Survey(size, modified, sha256_of(path), layout, starts, lines)
        job.save("inputs", number, found._asdict())
    except DataError as error:
        job.save("inputs", number, {"error": str(error)})


def state_of(path: Path) -> tuple[int, int]:
    """What tells that a file was changed: its size, and when it was written, in ns. (0, 0) if there is none."""
    status = path.stat() if path.is_file() else None
    return (status.st_size, status.st_mtime_ns) if status else (0, 0)


def read_chunk(chunk: Chunk) -> Iterator[RawLine]:
    """The lines of a chunk.

    Raises:
        DataError: The file is damaged, or was changed since it was looked through.
    """
    if state_of(Path(chunk.path)) != (chunk.size, chunk.modified):
        raise DataError(
            f"{chunk.path} was changed while it was being prepared. Leave the inputs alone, and begin anew with --restart."
        )
    return itertools.islice(read_lines(Path(chunk.path), chunk.layout, chunk.line_number, chunk.offset), chunk.lines)


def curate_chunk(chunk: Chunk, job: Job) -> None:
    """Curates the lines of a chunk, and leaves the molecules it keeps, the lines it rejects, and counts."""
    tokenizer = _tokenizer(job.vocabulary)
    tranche = Tranche.of_file(chunk.name) if job.settings.trust_tranches else None
    is_settled = tranche is not None and job.settings.rules.settles_logp(tranche.logp)
    lines, curated_batches, kept, rejected = read_chunk(chunk), [], [], dict[int, str]()
    reasons, unknown = Counter[str](), Counter[str]()
    while batch := list(itertools.islice(lines, _BATCH)):
        good = [line for line in batch if not line.problem]
        curated = curate([line.smiles for line in good], job.settings.rules, tokenizer, logp_is_settled=is_settled)
        curated_batches.append(curated)
        kept.append(np.array([line.line_number for line in good], dtype=np.int64)[curated.kept])
        reasons.update(line.problem for line in batch if line.problem)
        rejected.update((line.line_number, line.problem) for line in batch if line.problem)
        for place, rejection in curated.rejected.items():
            rejected[good[place].line_number] = str(rejection)
            reasons[rejection.reason] += 1
            if rejection.reason == UNKNOWN_TOKEN:
                unknown.update(rejection.found.split(" "))
    _write_rows(job.result("chunks", chunk.number, "arrow"), np.concatenate(kept), curated_batches)
    _write_rejected(job.result("chunks", chunk.number, "rejected.arrow"), rejected)
    job.save("chunks", chunk.number, {"kept": sum(map(len, kept)), "rejected": dict(reasons), "unknown_tokens": dict(unknown)})


@functools.lru_cache(maxsize=1)  # a job's folder is named after all that it depends on: see `workspace`
def _tokenizer(vocabulary: Path) -> SmilesTokenizer:
    return SmilesTokenizer(Vocabulary.load(vocabulary))


class Rows(NamedTuple):
    """Molecules of a chunk in ascending order of their digests; of equal ones, the earlier line comes first.

    Attributes:
        high: uint64 [M], the first half of the digest: the hash that decides about shard and split.
        low: uint64 [M], the second half.
        line: int64 [M], line numbers.
        tokens: the ids of all, one after the other.
        offsets: int64 [M + 1]: those of row i are `tokens[offsets[i] : offsets[i + 1]]`.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    line: NDArray[np.int64]
    tokens: NDArray[np.integer]
    offsets: NDArray[np.int64]


def _write_rows(path: Path, lines: NDArray[np.int64], chunks: list[Curated]) -> None:
    import pyarrow

    digests = np.concatenate([chunk.digests for chunk in chunks])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: lines of equal digests stay in their order
    lengths = np.concatenate([chunk.lengths for chunk in chunks])
    tokens, offsets = take_ragged(np.concatenate([chunk.tokens for chunk in chunks]), lengths, order)
    ids = pyarrow.array(tokens if tokens.size and tokens.max() > 0xFFFF else tokens.astype(np.uint16))
    columns = {
        "high": digests[order, 0],
        "low": digests[order, 1],
        "line": lines[order],
        "tokens": pyarrow.LargeListArray.from_arrays(offsets, ids),
    }
    write_table(path, columns)


def take_ragged(
    values: NDArray[Any], lengths: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows of different lengths, given one after the other in `values`, in the order of `rows`; and their new offsets."""
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
    write_table(path, {"line": pyarrow.array(lines, pyarrow.int64()), "reason": reasons})


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Writes columns as an Arrow file of one batch, which can be mapped."""
    import pyarrow

    table = pyarrow.table(columns).combine_chunks()
    with (
        atomic_write(path) as staging,
        pyarrow.OSFile(str(staging), "wb") as sink,
        pyarrow.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=max(len(table), 1))


def open_table(path: Path) -> dict[str, Any]:
    """The columns that `write_table` wrote, mapped: memory is taken for what is used of them."""
    import pyarrow

    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()
    return {
        name: column.chunk(0) if column.num_chunks else column.combine_chunks()
        for name, column in zip(table.column_names, table.columns)
    }


def open_rows(path: Path) -> Rows:
    """The molecules of a chunk, mapped."""
    columns = open_table(path)
    tokens = columns["tokens"]
    high, low, line = (columns[name].to_numpy() for name in ("high", "low", "line"))
    return Rows(high, low, line, tokens.values.to_numpy(), tokens.offsets.to_numpy())


def plan_chunks(job: Job, surveys: Sequence[Survey], names: Sequence[str]) -> list[Chunk]:
    """Cuts the inputs of these names into chunks, as far as the limit goes, and leaves them for the tasks."""
    chunks: list[Chunk] = []
    left = sum(one.lines for one in surveys) if job.settings.limit is None else job.settings.limit
    for number, (found, name) in enumerate(zip(surveys, names)):
        for place, (line_number, offset) in enumerate(found.starts):
            lines = min(job.settings.piece_lines, found.lines - place * job.settings.piece_lines, left)
            if lines > 0:
                where = (len(chunks), number, name, str(Path(name).absolute()), found.layout, line_number, offset, lines)
                chunks.append(Chunk(*where, found.bytes, found.modified))
                left -= lines
    with atomic_write(job.folder / _PLAN) as staging:
        staging.write_text(json.dumps(chunks), encoding="utf-8")
    return chunks


@functools.lru_cache(maxsize=1)
def planned(job: Job) -> list[Chunk]:
    """The chunks that `plan_chunks` left."""
    rows = json.loads((job.folder / _PLAN).read_text(encoding="utf-8"))
    return [Chunk(*row)._replace(layout=Layout(*row[Chunk._fields.index("layout")])) for row in rows]
