"""Reads molecules line by line from files of all formats, in constant memory. Reading can start at any line.

A line without a usable SMILES is not an error: it is returned with its `problem`, so that the caller can count and report it.
A file that cannot be read to its end raises a `DataError`. `rows` reads all columns, and has stricter rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .detection import detect
from .layout import DETECT, PARQUET, SDF, SPLIT, Layout, RawLine, ReadOptions
from .parquet import detect_parquet, read_parquet
from .sdf import read_sdf, record_starts
from .sources import open_at, open_source
from .text import numbered_lines, raw_lines, rows_of

__all__ = ["find_layout", "find_starts", "read_lines"]


def find_layout(path: Path, options: ReadOptions = DETECT, name: str | None = None) -> Layout:
    """Finds out how a file is read.

    Args:
        path: The file; a Parquet file must not be compressed.
        options: What is known about it.
        name: Its name, for messages.

    Raises:
        DataError: If the file is missing, empty or damaged, is not a table of molecules, or lacks the column.
        ConfigError: If an option cannot be used.
    """
    name = name or str(path)
    with open_source(path) as source:
        layout = detect(name, source.head, options).layout
    return detect_parquet(name, path, options.smiles).layout if layout.form == PARQUET else layout


def read_lines(
    path: str | Path,
    layout: Layout,
    line_number: int = 1,
    offset: int = 0,
    copy: IO[bytes] | None = None,
    name: str | None = None,
) -> Iterator[RawLine]:
    """Yields the lines of a file, from the first one or from one that was read before.

    Args:
        path: The file, or a URL that is not compressed. Parquet must be a file.
        layout: The result of `find_layout` for the file.
        line_number: `RawLine.line_number` of the line to start with.
        offset: `RawLine.offset` of that line.
        copy: A file that the decompressed text is also written to, as it is read. Not supported for Parquet.
        name: Name of the file, for messages.

    Raises:
        DataError: If the file is damaged.
    """
    name = name or str(path)
    if layout.form == PARQUET:
        yield from read_parquet(Path(path), layout.smiles_column, offset)
        return
    with open_at(path, offset) as file:
        if layout.form == SDF:
            yield from read_sdf(name, file, layout, line_number, offset, copy)
            return
        lines = raw_lines(name, file, layout, line_number, offset, copy)
        yield from lines if offset else rows_of(name, lines, layout, strict=False)


def find_starts(
    path: str | Path, layout: Layout, every: int, limit: int | None, copy: IO[bytes] | None = None
) -> tuple[list[tuple[int, int]], int]:
    """Reads a file to its end, or up to `limit` lines, to find where every `every`-th line starts. See `read_lines` for `copy`.

    Returns:
        `RawLine.line_number` and `RawLine.offset` of lines 0, `every`, 2 `every` and so on; and the number of lines.

    Raises:
        DataError: If the file is damaged.
    """
    starts, count = [], 0
    for start in itertools.islice(_starts(path, layout, copy), limit):
        if count % every == 0:
            starts.append(start)
        count += 1
    return starts, count


def _starts(path: str | Path, layout: Layout, copy: IO[bytes] | None) -> Iterator[tuple[int, int]]:
    with open_at(path, 0) as file:
        if layout.form == SDF:
            yield from record_starts(str(path), file, layout, copy)
            return
        if layout.form == SPLIT:  # one record per line: nothing needs splitting
            for number, offset, _ in numbered_lines(str(path), file, layout.line_end, copy=copy):
                if number > layout.preamble + layout.has_header:
                    yield number, offset
            return
    yield from ((line.line_number, line.offset) for line in read_lines(path, layout, copy=copy))
