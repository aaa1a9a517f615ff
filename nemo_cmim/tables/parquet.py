"""SMILES of Parquet files, row by row. Reading can start at any row."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import DataError
from .columns import column_index, find_smiles_column
from .layout import NO_SMILES, PARQUET, Detected, Layout, RawLine
from .sources import READ_ERRORS, damaged_file

if TYPE_CHECKING:
    import pyarrow

__all__ = ["detect_parquet", "read_parquet"]

_BATCH_ROWS = 8192


def detect_parquet(name: str, path: Path | IO[bytes], column: str | None) -> Detected:
    """Finds the column of SMILES in a file that is not compressed.

    Raises:
        DataError: If the file is damaged, has no or several such columns, or the column does not hold text.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        schema: pyarrow.Schema = parquet.read_schema(path)
    except (*READ_ERRORS, pyarrow.ArrowException) as error:
        raise damaged_file(name, error, "row 0") from error
    index = find_smiles_column(name, schema.names) if column is None else column_index(name, schema.names, column)
    kind = schema.types[index]
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    is_text = any(
        is_kind(kind) for is_kind in (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    )
    if not is_text:
        raise DataError(f"{name}: the column {schema.names[index]!r} holds {kind}, not text. Name the SMILES column with --smiles.")
    return Detected(Layout(PARQUET, index, len(schema.names), has_header=False), schema.names)


def read_parquet(path: Path, smiles_column: int, offset: int) -> Iterator[RawLine]:
    """Yields the rows of a file that is not compressed, except the first `offset`.

    Raises:
        DataError: If the file is damaged.
    """
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with parquet.ParquetFile(path) as file:
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
                        problem = "" if smiles and smiles.strip(string.whitespace) else NO_SMILES
                        yield RawLine(row, row - 1, "" if problem else smiles.strip(string.whitespace), smiles or "", problem)
    except (*READ_ERRORS, pyarrow.ArrowException) as error:
        raise damaged_file(path, error, f"row {row}") from error
