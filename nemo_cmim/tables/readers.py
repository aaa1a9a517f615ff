"""Reads molecules line by line from .smi, .txt, .csv and .parquet files, which may be compressed, in constant memory.

A line without a usable SMILES is not an error: it is returned with its `problem`, so that the caller can count and report it.
A file that cannot be read to its end raises a `DataError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import DataError
from .columns import find_smiles_column, missing_smiles_column
from .formats import format_of, is_web_page, unsupported_format
from .layout import Layout, RawLine
from .parquet import parquet_layout, read_parquet
from .text import line_starts, raw_line, read_records

__all__ = ["FORMATS", "find_layout", "find_starts", "read_lines", "read_molecules"]

FORMATS = (".smi", ".txt", ".csv", ".parquet")


def read_molecules(path: str | Path, column: str | None = None) -> Iterator[RawLine]:
    """Yields every line of a file after its header, if it has one.

    Args:
        path: A .smi (columns separated by white space), .txt (tabs, or white space), .csv or .parquet file; plain, .gz or .xz.
        column: Name of the column of SMILES; None: `smiles` or `canonical_smiles` in upper or lower case. In a .smi or .txt
            file without a header, the first column.

    Raises:
        DataError: If the file is missing, empty or damaged, has an unknown format, or lacks the column.
    """
    path = Path(path)
    lines = read_lines(path, find_layout(path, column))
    first = next(lines, None)
    if first is None:
        raise _no_molecules(path)
    return itertools.chain([first], lines)


def find_layout(path: Path, column: str | None = None) -> Layout:
    """Finds the format and the SMILES column of a file from its name and first line. See `read_molecules` for arguments and errors."""
    file_format = format_of(path.name.lower())
    if file_format not in FORMATS:
        raise unsupported_format(path, f"{', '.join(FORMATS)}, or one of these followed by .gz or .xz")
    if not path.is_file():
        state = "is a folder; name the files in the folder" if path.is_dir() else "is missing; check the path"
        raise DataError(f"{path} {state}.")
    if file_format == ".parquet":
        return parquet_layout(path, column)
    first = next(read_records(path, file_format), None)
    if first is None:
        raise _no_molecules(path)
    if is_web_page(first.text):
        raise DataError(
            f"{path} is a web page, not a list of molecules, perhaps a server's answer to a missing file. Download the file again."
        )
    index = find_smiles_column(first.fields, column)
    if index is None and (file_format == ".csv" or column is not None):
        raise missing_smiles_column(path, column, first.fields)
    return Layout(file_format, index or 0, len(first.fields), has_header=index is not None)


def read_lines(
    path: Path, layout: Layout, line_number: int = 1, offset: int = 0, copy: IO[bytes] | None = None
) -> Iterator[RawLine]:
    """Yields the lines of a file, from the first one or from one that was read before.

    Args:
        path: The file.
        layout: The result of `find_layout` for the file.
        line_number: `RawLine.line_number` of the line to start with.
        offset: `RawLine.offset` of that line.
        copy: A file that the decompressed text is also written to, as it is read. Not supported for Parquet.

    Raises:
        DataError: If the file is damaged.
    """
    if layout.file_format == ".parquet":
        return read_parquet(path, layout.smiles_column, offset)
    records = read_records(path, layout.file_format, line_number, offset, copy)
    if layout.has_header and offset == 0:
        next(records, None)
    return (raw_line(record, layout) for record in records)


def find_starts(
    path: Path, layout: Layout, every: int, limit: int | None, copy: IO[bytes] | None = None
) -> tuple[list[tuple[int, int]], int]:
    """Reads a file to its end, or up to `limit` lines, to find where every `every`-th line starts. See `read_lines` for `copy`.

    Returns:
        `RawLine.line_number` and `RawLine.offset` of lines 0, `every`, 2 `every` and so on; and the number of lines.

    Raises:
        DataError: If the file is damaged.
    """
    if layout.file_format in (".smi", ".txt"):  # one record per line: nothing needs parsing
        starts_of_lines = line_starts(path, layout.has_header, copy)
    else:
        starts_of_lines = ((line.line_number, line.offset) for line in read_lines(path, layout, copy=copy))
    starts, count = [], 0
    for start in itertools.islice(starts_of_lines, limit):
        if count % every == 0:
            starts.append(start)
        count += 1
    return starts, count


def _no_molecules(path: Path) -> DataError:
    return DataError(f"{path} holds no molecules. Leave the file out, or download it again.")
