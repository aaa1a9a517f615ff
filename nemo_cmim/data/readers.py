"""Reads molecules line by line from .smi, .txt, .csv and .parquet files, each also as .gz or .xz. Memory stays flat.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError

__all__ = ["RawLine", "read_molecules"]

SMILES_COLUMNS = ("smiles", "canonical_smiles")
_FORMATS = (".smi", ".txt", ".csv", ".parquet")
_NAME_COLUMN = "Name the column of SMILES with --column."
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)


class RawLine(NamedTuple):
    """One molecule of a file, as it stands there.

    Attributes:
        file: path of the file.
        line_number: counted from 1, the header included; in Parquet the number of the row.
        smiles: the SMILES, unchecked; empty if there is a problem.
        text: the whole line without its line end; in Parquet the SMILES.
        problem: why the line holds no SMILES; empty for a good line.
    """

    file: str
    line_number: int
    smiles: str
    text: str
    problem: str = ""


class _Record(NamedTuple):
    line_number: int
    fields: Sequence[str]
    text: str
    is_whole: bool  # the line has its line end


def read_molecules(path: str | Path, column: str | None = None) -> Iterator[RawLine]:
    """Yields every line of a file after its header, if it has one.

    Args:
        path: A .smi (white space between columns), .txt (tabs, or white space), .csv or .parquet file; plain, .gz or .xz.
        column: Name of the column of SMILES. By default `smiles` or `canonical_smiles` in any case; a .smi or .txt file
            without a header has its SMILES first.

    Raises:
        DataError: The file is missing, of an unknown format, empty, damaged, not UTF-8, or lacks the column.
    """
    path = Path(path)
    file_format = _format_of(path)
    if not path.is_file():
        raise DataError(f"{path} is {'a folder; name the files in it' if path.is_dir() else 'missing; check the path'}.")
    lines = _parquet_lines(path, column) if file_format == ".parquet" else _text_lines(path, file_format, column)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} holds no molecules. Leave it out, or download it again.")
    return itertools.chain([first], lines)


def _format_of(path: Path) -> str:
    name = path.name.lower()
    for compression in (".gz", ".xz"):
        name = name.removesuffix(compression)
    suffix = Path(name).suffix
    if suffix not in _FORMATS:
        raise DataError(f"{path} is of an unknown format: its name must end in {', '.join(_FORMATS)}, each also with .gz or .xz.")
    return suffix


def _open(path: Path) -> io.BufferedIOBase:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    return lzma.open(path) if suffix == ".xz" else path.open("rb")


def _damaged(path: Path, error: Exception, after: str) -> DataError:
    return DataError(f"{path} cannot be read after {after}: {error}. It is damaged or cut short: download or compress it again.")


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends."""
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}, is not UTF-8 text: {error.reason}. Convert the file, as by: iconv -f latin1 -t utf-8."
        ) from error
    except _DAMAGED as error:
        raise _damaged(path, error, f"line {number}") from error


def _split_records(path: Path, file_format: str) -> Iterator[_Record]:
    for number, line in _decoded_lines(path):
        text = line.rstrip("\r\n")
        fields = text.split("\t") if file_format == ".txt" and "\t" in text else text.split()
        yield _Record(number, fields, text, line != text)


def _csv_records(path: Path) -> Iterator[_Record]:
    lines: list[str] = []  # those of the record being read: a quoted cell may hold line ends

    def feed() -> Iterator[str]:
        for _, line in _decoded_lines(path):
            lines.append(line)
            yield line

    reader = csv.reader(feed(), strict=True)
    number = 1
    try:
        for fields in reader:
            text = "".join(lines)
            yield _Record(number, fields, text.rstrip("\r\n"), text.endswith(("\n", "\r")))
            lines.clear()
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {number}, is not CSV: {error}. Correct the quotes in this line.") from error


def _text_lines(path: Path, file_format: str, column: str | None) -> Iterator[RawLine]:
    is_csv = file_format == ".csv"
    records = _csv_records(path) if is_csv else _split_records(path, file_format)
    first = next(records, None)
    if first is None:
        return
    if first.text.lstrip().lower().startswith(("<!doctype", "<html", "<?xml")):
        raise DataError(f"{path} is a web page, not a list of molecules (a server's answer to a missing file?). Download it again.")
    place = _find_column(first.fields, column)
    if place is None:
        if is_csv or column is not None:
            raise _no_column(path, column, first.fields)
        place, records = 0, itertools.chain([first], records)
    for record in records:
        problem = _problem(record, place, len(first.fields), is_csv)
        smiles = "" if problem else record.fields[place].strip()
        yield RawLine(str(path), record.line_number, smiles, record.text, problem)


def _find_column(names: Sequence[str], column: str | None) -> int | None:
    if column is not None:
        return names.index(column) if column in names else None
    known = [name.strip().lower() for name in names]
    return next((known.index(name) for name in SMILES_COLUMNS if name in known), None)


def _no_column(path: Path, column: str | None, found: Sequence[str]) -> DataError:
    wanted = repr(column) if column is not None else " or ".join(map(repr, SMILES_COLUMNS))
    return DataError(f"{path} has no column {wanted}; its first line is {', '.join(map(repr, found))}. {_NAME_COLUMN}")


def _problem(record: _Record, place: int, width: int, is_csv: bool) -> str:
    """Why a record holds no SMILES. `width` is the number of columns of the file's first line."""
    cells = len(record.fields)
    if not record.text.strip():
        return "empty line"
    if not record.is_whole and cells == place + 1 < width:
        return "line cut short"  # the file ends inside or right after the SMILES, where other lines go on
    if is_csv and cells != width:
        return "wrong number of columns"
    if cells <= place or not record.fields[place].strip():
        return "no SMILES"
    return ""


def _parquet_lines(path: Path, column: str | None) -> Iterator[RawLine]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with _open(path) as stream:
            table = parquet.ParquetFile(stream)
            schema = table.schema_arrow
            place = _find_column(schema.names, column)
            if place is None:
                raise _no_column(path, column, schema.names)
            kind = schema.types[place]
            kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise DataError(f"{path}, column {schema.names[place]!r}, holds {kind}, not text. {_NAME_COLUMN}")
            for batch in table.iter_batches(batch_size=8192, columns=[schema.names[place]]):
                for smiles in batch.column(0).to_pylist():
                    number += 1
                    problem = "" if smiles and smiles.strip() else "no SMILES"
                    yield RawLine(str(path), number, "" if problem else smiles.strip(), smiles or "", problem)
    except (*_DAMAGED, pyarrow.ArrowException) as error:
        raise _damaged(path, error, f"row {number}") from error
