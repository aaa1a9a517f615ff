"""Writes rows with their embeddings to Parquet and CSV files, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import DataError
from ..files import atomic_write

__all__ = ["check_output", "embedding_writer"]


def check_output(path: Path, overwrite: bool) -> None:
    """Checks that `embedding_writer` can write a file of this name.

    Raises:
        DataError: If the file exists and `overwrite` is False, its suffix is not .parquet or .csv, or its folder does not exist.
    """
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists already. Name a different file, or replace this one with --overwrite.")
    if path.suffix not in (".parquet", ".csv"):
        raise DataError(f"{path}: embeddings are written as .parquet or .csv, not {path.suffix or 'without a suffix'!r}.")
    if not path.parent.is_dir():
        raise DataError(f"There is no folder {path.parent} to write {path.name} to. Create the folder first.")


@contextmanager
def embedding_writer(path: Path) -> Iterator[Callable[[pa.Table, np.ndarray], None]]:
    """Yields a function that appends rows with their embeddings, float32 [N, D]. The file is written atomically.

    A .parquet file gets one column `embedding` of lists; a .csv file gets a column for each dimension: `e0`, `e1`, ...
    Append at least one block.

    Raises:
        DataError: If the rows already have a column of that name.
    """
    with atomic_write(path) as staging:
        writer: Any = None

        def append(rows: pa.Table, vectors: np.ndarray) -> None:
            nonlocal writer
            if path.suffix == ".parquet":
                values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
                rows = _with_columns(rows, {"embedding": values})
                writer = writer or pyarrow.parquet.ParquetWriter(staging, rows.schema)
            else:
                rows = _with_columns(rows, {f"e{i}": pa.array(vectors[:, i]) for i in range(vectors.shape[1])})
                writer = writer or pyarrow.csv.CSVWriter(staging, rows.schema)
            writer.write_table(rows)

        try:
            yield append
        finally:
            if writer is not None:
                writer.close()


def _with_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        if name in rows.column_names:
            raise DataError(f"The input already has a column {name!r}, the name of a column for the embedding. Rename the column.")
        rows = rows.append_column(name, values)
    return rows
