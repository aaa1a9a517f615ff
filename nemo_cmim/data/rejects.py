"""Third stage of `prepare`: every line that was not kept, in the order of the inputs, with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..files import whole_file
from .merge import DUPLICATE
from .pieces import Job, open_table, planned, read_piece

__all__ = ["REJECTED", "groups", "join_rejected", "write_rejected"]

REJECTED = "rejected.tsv.gz"
_PIECES = 8


class Group(NamedTuple):
    """Pieces `start` to `stop`."""

    number: int
    start: int
    stop: int


def write_rejected(group: Group, job: Job, shards: int) -> None:
    """Reads pieces once more for the text of the lines that they, or the shards, did not keep, and leaves those lines.

    Args:
        group: The pieces.
        job: The job.
        shards: Number of ranges of hashes.
    """
    pieces = planned(job)
    reasons = [_curation_reasons(job, number) for number in range(group.start, group.stop)]
    for shard in range(shards):
        columns = {name: column.to_numpy() for name, column in open_table(job.result("shards", shard, "duplicates.arrow")).items()}
        some = slice(*columns["piece"].searchsorted([group.start, group.stop]))
        rows = zip(*(columns[name][some].tolist() for name in ("piece", "line", "first_piece", "first_line")))
        for piece, line, first_piece, first_line in rows:
            reasons[piece - group.start][line] = f"{DUPLICATE}: of {pieces[first_piece].name}, line {first_line}"
    with (
        whole_file(job.result("rejected", group.number, "tsv.gz")) as path,
        _open_table(path, with_header=group.number == 0) as table,
    ):
        for piece, of_lines in zip(pieces[group.start : group.stop], reasons):
            if of_lines:
                lines = (line for line in read_piece(piece) if line.line_number in of_lines)
                table.writerows((piece.name, line.line_number, of_lines[line.line_number], line.text) for line in lines)
    job.save("rejected", group.number, {"lines": sum(map(len, reasons))})


def groups(pieces: int) -> list[Group]:
    """Consecutive pieces together, as each group reads the duplicates of all shards."""
    return [Group(number, start, min(start + _PIECES, pieces)) for number, start in enumerate(range(0, pieces, _PIECES))]


def join_rejected(job: Job, count: int, target: Path) -> None:
    """Puts the lines of all groups into one file: gzip reads files that follow each other as one."""
    with whole_file(target) as staging, staging.open("wb") as file:
        for number in range(count):
            with job.result("rejected", number, "tsv.gz").open("rb") as part:
                shutil.copyfileobj(part, file)


def _curation_reasons(job: Job, piece: int) -> dict[int, str]:
    columns = open_table(job.result("pieces", piece, "rejected.arrow"))
    return dict(zip(columns["line"].to_pylist(), columns["reason"].to_pylist()))


@contextmanager
def _open_table(path: Path, with_header: bool) -> Iterator[Any]:
    """A csv writer of tab-separated rows into a gzip file without a date."""
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        if with_header:
            writer.writerow(("file", "line", "reason", "text"))
        yield writer
