"""Cuts files of molecules into ranges of rows, which can be read on their own: on any machine, in any order.

The rows of all ranges of a file are the rows of `rows.MoleculeTable`, with the same columns, numbers and errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from .columns import check_columns
from .detection import detect
from .layout import PARQUET, SDF, Layout, RawLine, ReadOptions
from .parquet import detect_parquet
from .readers import find_starts
from .rows import Block, Columns, parquet_blocks
from .sdf import OWN_COLUMNS, data_names, read_sdf, sdf_columns
from .sources import READ_ERRORS, Source, damaged_file, open_at, open_source
from .text import raw_lines, rows_of

__all__ = ["CutFile", "RowRange", "cut_file", "read_range"]


class RowRange(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        offset: `RawLine.offset` of the first row.
        line_number: `RawLine.line_number` of the first row.
        stop: Offset of the row after the last one; None: the end of the file.
        rows: Number of rows, or of lines if empty lines follow the last row.
    """

    offset: int
    line_number: int
    stop: int | None
    rows: int


class CutFile(NamedTuple):
    """A file that `cut_file` has cut.

    Attributes:
        name: What the user called it, for messages.
        place: Path or URL to read it from: of the file itself, or of a copy.
        layout: How it is read.
        names: Names of its columns.
        types: Names of their Arrow types.
        ranges: Its ranges, in order.
    """

    name: str
    place: str
    layout: Layout
    names: Sequence[str]
    types: Sequence[str]
    ranges: Sequence[RowRange]

    @property
    def unit(self) -> str:
        """What row numbers count; see `MoleculeTable`."""
        return "row" if self.layout.form == PARQUET else "line"


def cut_file(name: str, options: ReadOptions, rows: int, copy: Callable[[Source], str]) -> CutFile:
    """Cuts a file into ranges of `rows` rows; those of a Parquet file begin at a row group where that is possible.

    Text is read to its end, to find where the ranges begin. Of Parquet, only the metadata is read.

    Args:
        name: A path, or a URL that fsspec supports.
        options: What is known about the file.
        rows: Number of rows of a range.
        copy: Saves the decompressed bytes of a source, and returns their path or URL. Called for files that cannot be read from the
            middle: compressed ones, and those of some web servers.

    Raises:
        DataError: See `MoleculeTable`.
        ConfigError: See `MoleculeTable`.
    """
    with open_source(name) as source:
        layout, names = detect(name, source.head, options)
        place = name if source.can_seek else copy(source)
    if layout.form == PARQUET:
        return _cut_parquet(name, place, options.smiles, rows)
    with open_at(place, 0) as file:
        if layout.form == SDF:
            names = sdf_columns(data_names(name, file, layout))
        else:
            next(rows_of(name, raw_lines(name, file, layout), layout, strict=True), None)  # checks the header
    check_columns(name, names)
    starts, lines = find_starts(place, layout, rows, None)
    ranges = [
        RowRange(offset, number, starts[i + 1][1] if i + 1 < len(starts) else None, min(rows, lines - i * rows))
        for i, (number, offset) in enumerate(starts)
    ]
    return CutFile(name, place, layout, list(names), ["string"] * len(names), ranges)


def _cut_parquet(name: str, place: str, column: str | None, rows: int) -> CutFile:
    with open_at(place, 0) as file:
        layout, names = detect_parquet(name, file, column)
        check_columns(name, names)
        file.seek(0)
        with pyarrow.parquet.ParquetFile(file) as table:
            types = [str(kind) for kind in table.schema_arrow.types]
            groups = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    ranges, first, count = [], 0, 0
    for size in [*groups, 0]:
        if count and (not size or count + size > rows):
            ranges += [
                RowRange(at, at + 1, min(at + rows, first + count), min(rows, first + count - at))
                for at in range(first, first + count, rows)
            ]
            first, count = first + count, 0
        count += size
    return CutFile(name, place, layout, list(names), types, ranges)


def read_range(cut: CutFile, part: RowRange, max_rows: int) -> Iterator[Block]:
    """Yields the rows of a range, in blocks of at most `max_rows`.

    Raises:
        DataError: See `MoleculeTable.blocks`.
    """
    with open_at(cut.place, 0 if cut.layout.form == PARQUET else part.offset) as file:
        if cut.layout.form == PARQUET:
            try:
                with pyarrow.parquet.ParquetFile(file) as table:
                    yield from parquet_blocks(table, cut.layout, max_rows, part.offset, part.stop)
            except (*READ_ERRORS, pa.ArrowException) as error:
                raise damaged_file(cut.name, error, f"row {part.offset}") from error
            return
        columns = Columns(cut.name, cut.layout, cut.names)
        lines = columns.divided(_lines(cut, part, file))
        yield from columns.blocks(itertools.takewhile(lambda line: part.stop is None or line.offset < part.stop, lines), max_rows)


def _lines(cut: CutFile, part: RowRange, file: IO[bytes]) -> Iterator[RawLine]:
    if cut.layout.form == SDF:
        data = cut.names[len(OWN_COLUMNS) :]
        lines = read_sdf(cut.name, file, cut.layout, part.line_number, part.offset, names=data)
        return (line._replace(fields=[line.smiles, *line.fields]) for line in lines)
    return raw_lines(cut.name, file, cut.layout, part.line_number, part.offset)
