"""Reads all columns of a file in blocks of rows, each an Arrow table, in constant memory.

Every row of the file is in a block. A row that has no SMILES is in it with the reason. A line that cannot be divided into the columns of
the file is an error: it has more or fewer cells than the header, its quotes are not closed, or it is not UTF-8 text. Empty lines at the end
of a file are not rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from string import whitespace
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ..errors import DataError
from .columns import check_columns
from .detection import detect
from .layout import (
    DELIMITED,
    DETECT,
    EMPTY_LINE,
    NO_SMILES,
    PARQUET,
    SDF,
    SPLIT,
    Detected,
    Layout,
    RawLine,
    ReadOptions,
)
from .parquet import detect_parquet
from .sdf import data_names, read_sdf, sdf_columns
from .sources import READ_ERRORS, Source, damaged_file, open_decompressed, open_source, reopenable
from .text import raw_lines, rows_of, why_not_divided

__all__ = ["Block", "Columns", "MoleculeTable", "parquet_blocks"]


class Block(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        numbers: Numbers of the rows, see `MoleculeTable.unit`.
        smiles: Cells of the SMILES column, not validated; None if there is a problem.
        problems: Why a row has no SMILES, by its index in the block.
        rows: All columns.
    """

    numbers: Sequence[int]
    smiles: list[str | None]
    problems: dict[int, str]
    rows: pa.Table


class Columns:
    """Divides the lines of a file into its columns.

    Args:
        source: Name of the file, for messages.
        layout: How its lines are read.
        names: Names of all columns.
        strict: See `MoleculeTable`.
    """

    def __init__(self, source: str, layout: Layout, names: Sequence[str], *, strict: bool = True) -> None:
        self._source, self._layout, self._names, self._strict = source, layout, list(names), strict

    def blocks(self, lines: Iterable[RawLine], max_rows: int) -> Iterator[Block]:
        """Yields the lines that `divided` yields, in blocks of at most `max_rows`."""
        rows = iter(lines)
        while chunk := list(itertools.islice(rows, max_rows)):
            problems = {i: line.problem for i, line in enumerate(chunk) if line.problem}
            columns = [_text_array(column) for column in zip(*(line.fields for line in chunk))]
            cells = [None if line.problem else line.smiles for line in chunk]
            yield Block([line.line_number for line in chunk], cells, problems, pa.Table.from_arrays(columns, names=self._names))

    def divided(self, lines: Iterator[RawLine]) -> Iterator[RawLine]:
        """Checks that each line has all columns, and leaves out empty lines at the end.

        Raises:
            DataError: If a line cannot be divided into the columns.
        """
        empty: list[RawLine] = []
        width = len(self._names)
        for line in lines:
            if line.problem == EMPTY_LINE and self._layout.form != SDF:
                empty.append(line._replace(fields=[""] * width))
                continue
            yield from empty
            empty.clear()
            if reason := self._why_not_divided(line, width):
                if self._strict:
                    raise DataError(f"{self._source}, line {line.problem_line or line.line_number}: {reason}")
                yield line._replace(fields=[""] * width, problem=reason.removesuffix("."))
            else:
                yield line._replace(fields=[*line.fields, *[""] * (width - len(line.fields))])

    def _why_not_divided(self, line: RawLine, width: int) -> str:
        layout, fields = self._layout, line.fields
        if reason := why_not_divided(line):
            return reason
        if layout.form == SPLIT and width == 2 and len(fields) == 1 and layout.smiles_column == 0:
            return ""  # a line of .smi may have no name
        if layout.form == DELIMITED or (layout.form != SDF and layout.delimiter):
            return "" if len(fields) == width else f"it has {len(fields)} columns, but the file has {width}. Correct the line."
        if len(fields) > width or (len(fields) < width and 0 < layout.smiles_column < width - 1):
            return f"it has {len(fields)} fields, but the file has {width} columns. Separate the columns by tabs."
        return ""


def parquet_blocks(
    file: pyarrow.parquet.ParquetFile, layout: Layout, max_rows: int, start: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """Yields rows `start` to before `stop` of a Parquet file, in blocks of at most `max_rows`. Only their row groups are read."""
    stop = file.metadata.num_rows if stop is None else stop
    first, groups, skipped = 0, [], 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows <= start:
            skipped += rows
        elif first < stop:
            groups.append(group)
        first += rows
    row = skipped
    for batch in file.iter_batches(max_rows, row_groups=groups):
        begin, end = max(start - row, 0), min(stop - row, len(batch))
        if begin < end:
            some = pa.Table.from_batches([batch.slice(begin, end - begin)])
            smiles = some.column(layout.smiles_column).to_pylist()
            problems = {i: NO_SMILES for i, one in enumerate(smiles) if not one or not one.strip(whitespace)}
            cells = [None if i in problems else one for i, one in enumerate(smiles)]
            yield Block(range(row + begin + 1, row + end + 1), cells, problems, some)
        row += len(batch)


class MoleculeTable:
    """A file of molecules that is open for reading: a context manager.

    Args:
        where: A path, a URL, or `-`, see `sources.open_source`; or the open input.
        options: What is known about the file.
        strict: False: a line that cannot be divided into columns is a row with this problem and with empty cells, not an error.

    Attributes:
        name: What the user called the file, for messages.
        names: Names of all columns. Those of a .smi file without header are `smiles` and `id`. An SDF file has `smiles`, which
            RDKit writes, `name`, and the names of its data.
        smiles_column: Index of the SMILES column.
        unit: What row numbers count, from 1: lines of text files, with the header; rows of Parquet files. An SDF record has the
            number of its first line.

    Raises:
        DataError: If the file is missing, empty or damaged, is not a table of molecules, lacks the column, or has two columns of one name.
        ConfigError: If an option cannot be used.
    """

    def __init__(self, where: str | Path | Source, options: ReadOptions = DETECT, *, strict: bool = True) -> None:
        self._strict = strict
        self._stack = ExitStack()
        self._fraction = 0.0
        try:
            self._source = self._stack.enter_context(where if isinstance(where, Source) else open_source(where))
            self.name = self._source.name
            layout, names = detect(self.name, self._source.head, options)
            if layout.form in (PARQUET, SDF):  # read more than once, or from the end
                self._path, context = reopenable(self._source, plain=layout.form == PARQUET)
                self._stack.enter_context(context)
                layout, names = (
                    detect_parquet(self.name, self._path, options.smiles) if layout.form == PARQUET else self._open_sdf(layout)
                )
            self.names, self.unit = list(names), "row" if layout.form == PARQUET else "line"
            check_columns(self.name, self.names)
        except BaseException:
            self._stack.close()
            raise
        self._layout, self.smiles_column = layout, layout.smiles_column

    def _open_sdf(self, layout: Layout) -> Detected:
        with open_decompressed(self._path) as file:
            self._data = data_names(self.name, file, layout)
        return Detected(layout, sdf_columns(self._data))

    def __enter__(self) -> MoleculeTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def blocks(self, max_rows: int) -> Iterator[Block]:
        """Yields all rows in blocks of at most `max_rows`, all but the last of this size. Can be called once.

        Raises:
            DataError: If a row cannot be divided into columns, or the file is damaged.
        """
        if self._layout.form == PARQUET:
            return self._parquet_blocks(max_rows)
        columns = Columns(self.name, self._layout, self.names, strict=self._strict)
        return columns.blocks(columns.divided(self._lines()), max_rows)

    def fraction_read(self) -> float | None:
        """The fraction of the file that has been read; None if its size is unknown."""
        if self._layout.form == PARQUET:
            return self._fraction
        position, size = self._source.position(), self._source.size
        return None if position is None or not size else min(1.0, position / size)

    def _parquet_blocks(self, max_rows: int) -> Iterator[Block]:
        done = 0
        try:
            with pyarrow.parquet.ParquetFile(self._path) as file:
                for block in parquet_blocks(file, self._layout, max_rows):
                    done += len(block.smiles)
                    self._fraction = done / file.metadata.num_rows
                    yield block
        except (*READ_ERRORS, pa.ArrowException) as error:
            raise damaged_file(self.name, error, f"row {done}") from error

    def _lines(self) -> Iterator[RawLine]:
        if self._layout.form == SDF:
            self._source = self._stack.enter_context(open_source(self._path))
            return (
                line._replace(fields=[line.smiles, *line.fields])
                for line in read_sdf(self.name, self._source.file, self._layout, names=self._data)
            )
        return rows_of(self.name, raw_lines(self.name, self._source.file, self._layout), self._layout, strict=True)


def _text_array(cells: Sequence[str | None]) -> pa.Array:
    """The array that `pa.array(cells, pa.string())` makes. That function imports pandas, which takes as long as loading a model."""
    encoded = [None if cell is None else cell.encode() for cell in cells]
    ends = np.cumsum([0, *(len(text or b"") for text in encoded)])
    if ends[-1] > np.iinfo(np.int32).max:
        return pa.array(cells, pa.string())
    is_text = np.packbits(np.array([text is not None for text in encoded], dtype=bool), bitorder="little")
    buffers = (ends.astype(np.int32), b"".join(text for text in encoded if text), is_text)
    return pa.StringArray.from_buffers(len(cells), *map(pa.py_buffer, buffers))
