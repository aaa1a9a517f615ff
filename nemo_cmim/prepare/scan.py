"""First stage of `prepare`: reads each input to its end, finds where its chunks begin, and decompresses it.

A compressed file can only be read from its start. Reading its chunks from the file itself would decompress it once for each chunk,
so the scan leaves a decompressed copy, and later stages read that.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..files import atomic_write, sha256_of
from ..tables.detection import format_of
from ..tables.layout import Layout
from ..tables.readers import find_layout, find_starts
from ..tables.sources import compression_of, decompress
from .job import Job

__all__ = ["ScannedInput", "scan_input", "state_of"]


class ScannedInput(NamedTuple):
    """What the scan of an input found.

    Attributes:
        bytes: Size of the input.
        modified: Modification time of the input, ns.
        sha256: Checksum of the input.
        layout: How its lines are read.
        starts: Line number and offset of each chunk's first line.
        lines: Number of lines of all chunks.
        copy: Suffix of the decompressed copy (see `Job.result`); empty if the input is not compressed.
    """

    bytes: int
    modified: int
    sha256: str
    layout: Layout
    starts: list[tuple[int, int]]
    lines: int
    copy: str = ""  # an earlier version saved none

    def path_of_lines(self, job: Job, number: int, path: Path) -> Path:
        """The file to read lines from: the decompressed copy of input `number`, or the input itself, which is at `path`."""
        return job.result("inputs", number, self.copy) if self.copy else path


def scan_input(item: tuple[int, str], job: Job) -> None:
    """Scans one input and saves a `ScannedInput`, or an error message if the file cannot be used.

    Args:
        item: Number and path of the input.
        job: The job.
    """
    number, path = item[0], Path(item[1])
    options, every, limit = job.settings.read_options, job.settings.piece_lines, job.settings.limit
    source, copy = path, ""
    try:
        size, modified = state_of(path)
        if path.is_file() and compression_of(path) and format_of(path.name) == ".parquet":
            copy = "parquet"  # Parquet is read from its end, so it is decompressed before it is read
            source = job.result("inputs", number, copy)
            decompress(path, source)
        layout = find_layout(source, options, name=str(path))
        if compression_of(source):
            copy = layout.form
            with atomic_write(job.result("inputs", number, copy)) as staging, staging.open("wb") as file:
                starts, lines = find_starts(path, layout, every, limit, copy=file)
        else:
            starts, lines = find_starts(source, layout, every, limit)
        found = ScannedInput(size, modified, sha256_of(path), layout, starts, lines, copy)
        job.save("inputs", number, found._asdict())
    except DataError as error:
        job.save("inputs", number, {"error": str(error).replace(str(source), str(path))})


def state_of(path: Path) -> tuple[int, int]:
    """Size and modification time in ns, which change if the file is written; (0, 0) if it does not exist."""
    status = path.stat() if path.is_file() else None
    return (status.st_size, status.st_mtime_ns) if status else (0, 0)
