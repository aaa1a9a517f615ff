"""Reads files in blocks of rows, each an Arrow table with all columns of the file, in constant memory."""

from __future__ import annotations

import csv
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import DataError
from .columns import check_columns
from .formats import damaged_file, format_of, open_decompressed, unsupported_format
from .readers import read_molecules

__all__ = ["Block", "read_blocks"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_READ_BYTES = 1 << 20


class Block(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        smiles: the cells of the SMILES column, not validated.
        rows: all columns.
    """

    smiles: list[Any]
    rows: pa.Table


def read_blocks(path: Path, column: str, max_rows: int) -> Iterator[Block]:
    """Yields all rows of a file in blocks of at most `max_rows`.

    Args:
        path: A .csv or .tsv file with a header (plain or .gz), a .parquet file, or a .smi or .txt file as `read_molecules` reads it.
            The rows of .smi and .txt files have the columns `smiles` and `id`, which holds the other fields of the line.
        column: Name of the SMILES column.
        max_rows: Maximum number of rows in a block.

    Raises:
        DataError: If the file is empty or damaged, has an unknown format, lacks the column, or has two columns of one name.
    """
    file_format = format_of(path.name)
    try:
        if file_format in (".smi", ".txt"):
            tables, column = _molecule_tables(path, column, max_rows), "smiles"
        elif file_format == ".parquet":
            tables = _parquet_tables(path, column, max_rows)
        elif file_format in _DELIMITERS and path.suffix != ".xz":
            tables = _delimited_tables(path, column, max_rows, _DELIMITERS[file_format])
        else:
            raise unsupported_format(path, ".csv, .tsv (each also with .gz), .smi, .txt (each also with .gz or .xz) or .parquet")
        for table in tables:
            yield Block(table[column].to_pylist(), table)
    except (pa.ArrowInvalid, EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise damaged_file(path, error) from error


def _molecule_tables(path: Path, column: str, max_rows: int) -> Iterator[pa.Table]:
    lines = read_molecules(path, None if column == "smiles" else column)
    while chunk := list(itertools.islice(lines, max_rows)):
        others = [" ".join(line.text.replace(line.smiles, " ", 1).split()) for line in chunk]
        yield pa.table({"smiles": [line.smiles for line in chunk], "id": others})


def _parquet_tables(path: Path, column: str, max_rows: int) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        check_columns(path, names, [column, *names])
        for batch in file.iter_batches(max_rows):
            yield pa.Table.from_batches([batch])


def _delimited_tables(path: Path, column: str, max_rows: int, delimiter: str) -> Iterator[pa.Table]:
    """Reads every column as text, so that an id such as 007 stays as it is. An empty line of a one-column file is an empty SMILES."""
    with open_decompressed(path) as file:
        header = file.readline().decode("utf-8-sig").rstrip("\r\n")
    if not header:
        raise DataError(f"{path} is empty. A header and at least one row are needed.")
    names = next(csv.reader([header], delimiter=delimiter))
    check_columns(path, names, [column, *names])
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False)
    read = pyarrow.csv.ReadOptions(block_size=_READ_BYTES)
    with open_decompressed(path) as file, pyarrow.csv.open_csv(file, read, parse, convert) as reader:
        for batch in reader:
            for start in range(0, len(batch), max_rows):
                yield pa.Table.from_batches([batch.slice(start, max_rows)])
