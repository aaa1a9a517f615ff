"""Third stage of `prepare`: every line that was not kept, in the order of the inputs, with its reason."""

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
from .chunks import Chunk, Job, open_table, planned, read_chunk
from .merge import DUPLICATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REJECTED", "groups", "join_rejected", "write_rejected"]

REJECTED = "rejected.tsv.gz"
_CHUNKS = 8  # in a group


class Group(NamedTuple):
    """Chunks `start` to `stop`."""

    number: int
    start: int
    stop: int


def write_rejected(group: Group, job: Job, shards: int) -> None:
    """Reads chunks once more for the text of the lines that they, or the shards, did not keep, and leaves those lines.

    Args:
        group: The chunks.
        job: The job.
        shards: Number of ranges of hashes.
    """
    chunks = planned(job)[group.start : group.stop]
    duplicates = _duplicates(job, group, shards)
    with (
        atomic_write(job.result("rejected", group.number, "tsv.gz")) as path,
        _open_table(path, with_header=group.number == 0) as write,
    ):
        for chunk in chunks:
            reasons = _reasons(job, chunk, duplicates)
            if reasons:
                for line in read_chunk(chunk):
                    if line.line_number in reasons:
                        write((chunk.name, line.line_number, reasons[line.line_number], line.text))
    job.save("rejected", group.number, {})


def _duplicates(job: Job, group: Group, shards: int) -> dict[str, NDArray[Any]]:
    """The duplicates in some chunks, from all shards, by chunk."""
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in ("chunk", "line", "first_chunk", "first_line")}
    for shard in range(shards):
        columns = {name: column.to_numpy() for name, column in open_table(job.result("shards", shard, "duplicates.arrow")).items()}
        some = slice(*columns["chunk"].searchsorted([group.start, group.stop]))
        for name, column in columns.items():
            found[name].append(column[some].copy())
    columns = {name: np.concatenate(parts) for name, parts in found.items()}
    order = np.argsort(columns["chunk"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _reasons(job: Job, chunk: Chunk, duplicates: dict[str, NDArray[Any]]) -> dict[int, str]:
    """Why lines of a chunk are not kept."""
    columns = open_table(job.result("chunks", chunk.number, "rejected.arrow"))
    reasons = dict(zip(columns["line"].to_pylist(), columns["reason"].to_pylist()))
    some = slice(*duplicates["chunk"].searchsorted([chunk.number, chunk.number + 1]))
    firsts = zip(*(duplicates[name][some].tolist() for name in ("line", "first_chunk", "first_line")))
    names = planned(job)
    reasons.update((line, f"{DUPLICATE}: of {names[first].name}, line {first_line}") for line, first, first_line in firsts)
    return reasons


def groups(chunks: int) -> list[Group]:
    """Consecutive chunks together, as each group reads the duplicates of all shards."""
    return [Group(number, start, min(start + _CHUNKS, chunks)) for number, start in enumerate(range(0, chunks, _CHUNKS))]


def join_rejected(job: Job, count: int, target: Path) -> None:
    """Puts the lines of all groups into one file: gzip reads files that follow each other as one."""
    with atomic_write(target) as staging, staging.open("wb") as file:
        for number in range(count):
            with job.result("rejected", number, "tsv.gz").open("rb") as part:
                shutil.copyfileobj(part, file)


@contextmanager
def _open_table(path: Path, with_header: bool) -> Iterator[Any]:
    """Yields what writes a row of tab-separated values into a gzip file without a date."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        plain, quoting = (
            csv.writer(text, "excel-tab", lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )

        def write(row: tuple[str, int, str, str]) -> None:
            needs_quotes = "\r" in row[0] + row[3]  # csv does not see it before Python 3.13
            (quoting if needs_quotes else plain).writerow(row)

        if with_header:
            plain.writerow(("file", "line", "reason", "text"))
        yield write
