"""Fourth stage of `prepare`: collects every rejected line with its reason, in the order of the inputs."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..files import atomic_write
from .arrow import open_arrow
from .chunks import Chunk, planned_chunks, read_chunk
from .job import Job
from .merge import DUPLICATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REJECTED", "chunk_groups", "join_rejected", "write_rejected"]

REJECTED = "rejected.tsv.gz"
_GROUP_SIZE = 8  # chunks


class _Group(NamedTuple):
    """Consecutive chunks, from number `start` to before `stop`."""

    number: int
    start: int
    stop: int


def write_rejected(group: _Group, job: Job, shards: int) -> None:
    """Reads chunks again for the text of the lines that are rejected or duplicates, and writes these lines.

    Args:
        group: The chunks.
        job: The job.
        shards: Number of hash ranges.
    """
    chunks = planned_chunks(job)[group.start : group.stop]
    duplicates = _duplicates(job, group, shards)
    with (
        atomic_write(job.result("rejected", group.number, "tsv.gz")) as path,
        _open_writer(path, with_header=group.number == 0) as write,
    ):
        for chunk in chunks:
            reasons = _reasons(job, chunk, duplicates)
            if reasons:
                for line in read_chunk(chunk):
                    if line.line_number in reasons:
                        write((chunk.name, line.line_number, reasons[line.line_number], line.text))
    job.save("rejected", group.number, {})


def _duplicates(job: Job, group: _Group, shards: int) -> dict[str, NDArray[Any]]:
    """The duplicates in a group of chunks, from all shards, sorted by chunk."""
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in ("chunk", "line", "first_chunk", "first_line")}
    for shard in range(shards):
        columns = {name: column.to_numpy() for name, column in open_arrow(job.result("shards", shard, "duplicates.arrow")).items()}
        some = slice(*columns["chunk"].searchsorted([group.start, group.stop]))
        for name, column in columns.items():
            found[name].append(column[some].copy())
    columns = {name: np.concatenate(parts) for name, parts in found.items()}
    order = np.argsort(columns["chunk"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _reasons(job: Job, chunk: Chunk, duplicates: dict[str, NDArray[Any]]) -> dict[int, str]:
    """Why lines of a chunk are rejected, by line number."""
    columns = open_arrow(job.result("chunks", chunk.number, "rejected.arrow"))
    reasons = dict(zip(columns["line"].to_pylist(), columns["reason"].to_pylist()))
    some = slice(*duplicates["chunk"].searchsorted([chunk.number, chunk.number + 1]))
    firsts = zip(*(duplicates[name][some].tolist() for name in ("line", "first_chunk", "first_line")))
    chunks = planned_chunks(job)
    reasons.update((line, f"{DUPLICATE}: of {chunks[first].name}, line {first_line}") for line, first, first_line in firsts)
    return reasons


def chunk_groups(chunks: int) -> list[_Group]:
    """Groups consecutive chunks, because each task reads the duplicates of all shards."""
    starts = range(0, chunks, _GROUP_SIZE)
    return [_Group(number, start, min(start + _GROUP_SIZE, chunks)) for number, start in enumerate(starts)]


def join_rejected(job: Job, count: int, target: Path) -> None:
    """Concatenates the files of all groups: concatenated gzip files are one valid gzip file."""
    with atomic_write(target) as staging, staging.open("wb") as file:
        for number in range(count):
            with job.result("rejected", number, "tsv.gz").open("rb") as part:
                shutil.copyfileobj(part, file)


@contextmanager
def _open_writer(path: Path, with_header: bool) -> Iterator[Any]:
    """Yields a function that writes a row of tab-separated values to a gzip file without a date."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed,
        io.TextIOWrapper(compressed, encoding="utf-8", newline="") as text,
    ):
        plain, quoting = (
            csv.writer(text, "excel-tab", lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )

        def write(row: tuple[str, int, str, str]) -> None:
            needs_quotes = "\r" in row[0] + row[3]  # csv ignores it before Python 3.13
            (quoting if needs_quotes else plain).writerow(row)

        if with_header:
            plain.writerow(("file", "line", "reason", "text"))
        yield write
