"""Reads molecules line by line from .smi, .txt, .csv and .parquet files, each also as .gz or .xz, from any line on. Memory stays flat.

A line without a usable SMILES is not an error: it comes out with its `problem`, so that the caller can count and keep it.
A file that cannot be read to its end is a `DataError`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import lzma
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError

__all__ = [
    "FORMATS",
    "Layout",
    "RawLine",
    "find_layout",
    "find_starts",
    "is_web_page",
    "read_lines",
    "read_molecules",
    "unpacked",
]

FORMATS = (".smi", ".txt", ".csv", ".parquet")
SMILES_COLUMNS = ("smiles", "canonical_smiles")
_NAME_COLUMN = "Name the column of SMILES with --column."
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
_BATCH = 8192  # rows of Parquet


class RawLine(NamedTuple):
    """One molecule of a file, as it stands there.

    Attributes:
        line_number: counted from 1, the header included; in Parquet the number of the row.
        offset: where it begins: bytes of the decompressed text before it; in Parquet the rows before it.
        smiles: the SMILES, unchecked; empty if there is a problem.
        text: the whole line without its line end; in Parquet the SMILES.
        problem: why the line holds no SMILES; empty for a good line.
    """

    line_number: int
    offset: int
    smiles: str
    text: str
    problem: str = ""


class Layout(NamedTuple):
    """Where the SMILES stand in the lines of a file.

    Attributes:
        file_format: one of `FORMATS`.
        place: the column of the SMILES, from 0.
        width: columns of the first line.
        has_header: the first line is none of the molecules.
    """

    file_format: str
    place: int
    width: int
    has_header: bool


class _Line(NamedTuple):
    number: int
    offset: int
    text: str  # with its line end
    is_text: bool  # it is UTF-8


class _Record(NamedTuple):
    number: int
    offset: int
    fields: Sequence[str]
    text: str
    is_whole: bool  # the line has its line end
    problem: str = ""


def read_molecules(path: str | Path, column: str | None = None) -> Iterator[RawLine]:
    """Yields every line of a file after its header, if it has one.

    Args:
        path: A .smi (white space between columns), .txt (tabs, or white space), .csv or .parquet file; plain, .gz or .xz.
        column: Name of the column of SMILES. By default `smiles` or `canonical_smiles` in any case; a .smi or .txt file
            without a header has its SMILES first.

    Raises:
        DataError: The file is missing, of an unknown format, empty, damaged, or lacks the column.
    """
    path = Path(path)
    lines = read_lines(path, find_layout(path, column))
    first = next(lines, None)
    if first is None:
        raise _no_molecules(path)
    return itertools.chain([first], lines)


def find_layout(path: Path, column: str | None = None) -> Layout:
    """How a file's lines are to be read, by its name and first line; arguments and errors of `read_molecules`."""
    file_format = _format_of(path)
    if not path.is_file():
        raise DataError(f"{path} is {'a folder; name the files in it' if path.is_dir() else 'missing; check the path'}.")
    if file_format == ".parquet":
        return _parquet_layout(path, column)
    first = next(_records(path, file_format), None)
    if first is None:
        raise _no_molecules(path)
    if is_web_page(first.text):
        raise DataError(f"{path} is a web page, not a list of molecules (a server's answer to a missing file?). Download it again.")
    place = _find_column(first.fields, column)
    if place is None and (file_format == ".csv" or column is not None):
        raise _no_column(path, column, first.fields)
    return Layout(file_format, place or 0, len(first.fields), has_header=place is not None)


def read_lines(path: Path, layout: Layout, line_number: int = 1, offset: int = 0) -> Iterator[RawLine]:
    """Yields the lines of a file from one on: the first by default, or one that was read before.

    Args:
        path: The file.
        layout: What `find_layout` says of it.
        line_number: `RawLine.line_number` of the line to begin with.
        offset: Its `RawLine.offset`.

    Raises:
        DataError: The file is damaged.
    """
    if layout.file_format == ".parquet":
        return _parquet_lines(path, layout.place, offset)
    records = _records(path, layout.file_format, line_number, offset)
    if layout.has_header and offset == 0:
        next(records, None)
    return (_raw_line(record, layout) for record in records)


def find_starts(path: Path, layout: Layout, every: int, limit: int | None) -> tuple[list[tuple[int, int]], int]:
    """Where every so many lines begin, found by reading a file to its end, or to a limit.

    Returns:
        `RawLine.line_number` and `RawLine.offset` of line 0, `every`, 2 `every` and so on; and how many lines there are.

    Raises:
        DataError: The file is damaged.
    """
    is_plain = layout.file_format in (".smi", ".txt")  # each line is one: what it holds need not be looked at
    places = _line_places(path, layout.has_header) if is_plain else (line[:2] for line in read_lines(path, layout))
    starts, count = [], 0
    for place in itertools.islice(places, limit):
        if count % every == 0:
            starts.append(place)
        count += 1
    return starts, count


def _line_places(path: Path, has_header: bool) -> Iterator[tuple[int, int]]:
    number = offset = 0
    try:
        with unpacked(path) as stream:
            for number, line in enumerate(stream, 1):
                if number > 1 or not has_header:
                    yield number, offset
                offset += len(line)
    except _DAMAGED as error:
        raise _damaged(path, error, f"line {number}") from error


def _no_molecules(path: Path) -> DataError:
    return DataError(f"{path} holds no molecules. Leave it out, or download it again.")


def _format_of(path: Path) -> str:
    name = path.name.lower()
    for compression in (".gz", ".xz"):
        name = name.removesuffix(compression)
    suffix = Path(name).suffix
    if suffix not in FORMATS:
        raise DataError(f"{path} is of an unknown format: its name must end in {', '.join(FORMATS)}, each also with .gz or .xz.")
    return suffix


def is_web_page(beginning: str) -> bool:
    """Whether a file that begins so is what a server answers in place of one."""
    return beginning.lstrip().lower().startswith(("<!doctype", "<html", "<?xml"))


def unpacked(path: Path, name: str | None = None) -> io.BufferedIOBase:
    """Opens a file for reading, unpacked if the end of its name, or of another, says that it is .gz or .xz."""
    suffix = Path(name or path.name).suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    return lzma.open(path) if suffix == ".xz" else path.open("rb")


def _damaged(path: Path, error: Exception, after: str) -> DataError:
    return DataError(f"{path} cannot be read after {after}: {error}. It is damaged or cut short: download or compress it again.")


def _text_lines(path: Path, number: int, offset: int) -> Iterator[_Line]:
    """Lines with their line ends, from the one that begins at `offset`."""
    number -= 1
    try:
        with unpacked(path) as stream:
            stream.seek(offset)
            for line in stream:
                number += 1
                try:
                    yield _Line(number, offset, line.decode("utf-8" if offset else "utf-8-sig"), True)
                except UnicodeDecodeError:
                    yield _Line(number, offset, line.decode("utf-8", "backslashreplace"), False)
                offset += len(line)
    except _DAMAGED as error:
        raise _damaged(path, error, f"line {number}") from error


def _records(path: Path, file_format: str, number: int = 1, offset: int = 0) -> Iterator[_Record]:
    lines = _text_lines(path, number, offset)
    return _csv_records(lines) if file_format == ".csv" else _split_records(lines, with_tabs=file_format == ".txt")


def _split_records(lines: Iterator[_Line], with_tabs: bool) -> Iterator[_Record]:
    for number, offset, line, is_text in lines:
        text = line.rstrip("\r\n")
        fields = text.split("\t") if with_tabs and "\t" in text else text.split()
        yield _Record(number, offset, fields, text, line != text, "" if is_text else "not UTF-8 text")


def _csv_records(lines: Iterator[_Line]) -> Iterator[_Record]:
    """A quoted cell may hold line ends. A quote that is never closed spoils its own line only: those after it are read again."""
    waiting = deque[_Line]()
    taken: list[_Line] = []

    def feed() -> Iterator[str]:
        while line := waiting.popleft() if waiting else next(lines, None):
            taken.append(line)
            yield line.text

    while True:
        taken.clear()
        problem = ""
        try:
            fields = next(csv.reader(feed(), strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            fields, problem = [], f"not CSV ({error})"
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
        text = "".join(line.text for line in taken)
        if not all(line.is_text for line in taken):
            problem = "not UTF-8 text"
        yield _Record(taken[0].number, taken[0].offset, fields, text.rstrip("\r\n"), text.endswith(("\n", "\r")), problem)


def _find_column(names: Sequence[str], column: str | None) -> int | None:
    if column is not None:
        return names.index(column) if column in names else None
    known = [name.strip().lower() for name in names]
    return next((known.index(name) for name in SMILES_COLUMNS if name in known), None)


def _no_column(path: Path, column: str | None, found: Sequence[str]) -> DataError:
    wanted = repr(column) if column is not None else " or ".join(map(repr, SMILES_COLUMNS))
    return DataError(f"{path} has no column {wanted}; its first line is {', '.join(map(repr, found))}. {_NAME_COLUMN}")


def _raw_line(record: _Record, layout: Layout) -> RawLine:
    problem = record.problem or _problem(record, layout)
    smiles = "" if problem else record.fields[layout.place].strip()
    return RawLine(record.number, record.offset, smiles, record.text, problem)


def _problem(record: _Record, layout: Layout) -> str:
    """Why a record holds no SMILES."""
    cells = len(record.fields)
    if not record.text.strip():
        return "empty line"
    if not record.is_whole and cells == layout.place + 1 < layout.width:
        return "line cut short"  # the file ends inside or right after the SMILES, where other lines go on
    if layout.file_format == ".csv" and cells != layout.width:
        return "wrong number of columns"
    if cells <= layout.place or not record.fields[layout.place].strip():
        return "no SMILES"
    return ""


def _parquet_layout(path: Path, column: str | None) -> Layout:
    import pyarrow
    from pyarrow import parquet

    try:
        with unpacked(path) as stream:
            schema = parquet.ParquetFile(stream).schema_arrow
    except (*_DAMAGED, pyarrow.ArrowException) as error:
        raise _damaged(path, error, "row 0") from error
    place = _find_column(schema.names, column)
    if place is None:
        raise _no_column(path, column, schema.names)
    kind = schema.types[place]
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise DataError(f"{path}, column {schema.names[place]!r}, holds {kind}, not text. {_NAME_COLUMN}")
    return Layout(".parquet", place, len(schema.names), has_header=False)


def _parquet_lines(path: Path, place: int, offset: int) -> Iterator[RawLine]:
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with unpacked(path) as stream:
            table = parquet.ParquetFile(stream)
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if row + rows <= offset:
                    row += rows
                    continue
                for batch in table.iter_batches(_BATCH, row_groups=[group], columns=[table.schema_arrow.names[place]]):
                    skip = min(max(offset - row, 0), len(batch))
                    row += skip
                    for smiles in batch.column(0).slice(skip).to_pylist():
                        row += 1
                        problem = "" if smiles and smiles.strip() else "no SMILES"
                        yield RawLine(row, row - 1, "" if problem else smiles.strip(), smiles or "", problem)
    except (*_DAMAGED, pyarrow.ArrowException) as error:
        raise _damaged(path, error, f"row {row}") from error
