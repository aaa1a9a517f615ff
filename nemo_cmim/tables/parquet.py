"""SMILES of Parquet files, row by row. Reading can start at any row."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .columns import find_smiles_column, missing_smiles_column
from .formats import READ_ERRORS, damaged_file, open_decompressed
from .layout import Layout, RawLine

__all__ = ["parquet_layout", "read_parquet"]

_BATCH_ROWS = 8192


def parquet_layout(path: Path, column: str | None) -> Layout:
    """Finds the column of SMILES. Arguments and errors are those of `readers.find_layout`."""
    import pyarrow
    from pyarrow import parquet

    try:
        with open_decompressed(path) as stream:
            schema = parquet.ParquetFile(stream).schema_arrow
    except (*READ_ERRORS, pyarrow.ArrowException) as error:
        raise damaged_file(path, error, "row 0") from error
    index = find_smiles_column(schema.names, column)
    if index is None:
        raise missing_smiles_column(path, column, schema.names)
    kind = schema.types[index]
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise DataError(f"{path}: the column {schema.names[index]!r} holds {kind}, not text. Name the SMILES column with --column.")
    return Layout(".parquet", index, len(schema.names), has_header=False)


def read_parquet(path: Path, smiles_column: int, offset: int) -> Iterator[RawLine]:
    """Yields the rows of a file, except the first `offset`.

    Raises:
        DataError: If the file is damaged.
    """
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with open_decompressed(path) as stream:
            file = parquet.ParquetFile(stream)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row + rows <= offset:
                    row += rows
                    continue
                column = file.schema_arrow.names[smiles_column]
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
                    skip = min(max(offset - row, 0), len(batch))
                    row += skip
                    for smiles in batch.column(0).slice(skip).to_pylist():
                        row += 1
                        problem = "" if smiles and smiles.strip() else "no SMILES"
                        yield RawLine(row, row - 1, "" if problem else smiles.strip(string.whitespace), smiles or "", problem)
    except (*READ_ERRORS, pyarrow.ArrowException) as error:
        raise damaged_file(path, error, f"row {row}") from error
