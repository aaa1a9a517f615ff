"""Writes rows with their embeddings, block by block, to a file or to standard output."""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import DataError
from ..outputs import check_file, write_file

__all__ = ["OUTPUTS", "Append", "check_output", "embedding_writer"]

OUTPUTS = (".parquet", ".csv", ".csv.gz", ".npy", ".npz")

Append = Callable[[pa.Table, np.ndarray], None]


def check_output(path: Path, overwrite: bool) -> None:
    """Checks that `embedding_writer` can write a file of this name.

    Raises:
        DataError: If its suffix is not one of `OUTPUTS`; see `outputs.check_file` for others.
    """
    if str(path) == "-":
        return
    if not path.name.endswith(OUTPUTS) and not path.is_dir():
        raise DataError(
            f"{path}: embeddings are written as {', '.join(OUTPUTS)}, not {path.suffix or 'without a suffix'!r}; -o - writes CSV to "
            "standard output."
        )
    check_file(path, overwrite=overwrite)


class _Writer(Protocol):
    def append(self, rows: pa.Table, vectors: np.ndarray) -> None: ...

    def close(self) -> None: ...


@contextmanager
def embedding_writer(path: Path) -> Iterator[Append]:
    """Yields a function that appends rows with their embeddings, float32 [N, D]. A file is written atomically.

    A .parquet file gets one column `embedding` of lists; CSV, also for `-`, gets a column for each dimension: `e0`, `e1`, ... A .npy file
    gets the embeddings only, as one array; an .npz file gets the array `embedding` and one for each column of the rows: numbers, or text.
    Append at least one block.

    Raises:
        DataError: If the rows already have a column of that name, have a column that the format cannot hold, or cannot be written.
    """
    if str(path) == "-":
        writer: _Writer = _CsvWriter(_KeptOpen(sys.stdout.buffer))  # type: ignore[arg-type]
        yield writer.append
        writer.close()
        return
    with write_file(path, overwrite=True) as staging:
        writer = _WRITERS[".csv.gz" if path.name.endswith(".csv.gz") else path.suffix](staging)
        try:
            yield writer.append
        finally:
            writer.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def append(self, rows: pa.Table, vectors: np.ndarray) -> None:
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = _with_columns(rows, ["embedding"], [values])
        self._writer = self._writer or pyarrow.parquet.ParquetWriter(self._path, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _CsvWriter:
    def __init__(self, *files: Path | IO[bytes]) -> None:
        """Writes to the first; all are closed in this order."""
        self._files = files
        self._writer: Any = None

    def append(self, rows: pa.Table, vectors: np.ndarray) -> None:
        names = [f"e{i}" for i in range(vectors.shape[1])]
        rows = _with_columns(_flat(rows), names, [pa.array(column) for column in vectors.T])
        self._writer = self._writer or pyarrow.csv.CSVWriter(self._files[0], rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        for file in self._files:
            if not isinstance(file, Path):
                file.close()


def _gzip_writer(path: Path) -> _CsvWriter:
    file = path.open("wb")
    return _CsvWriter(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0), file)  # type: ignore[arg-type]


class _KeptOpen(io.RawIOBase):
    """Writes to a file that stays open."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def close(self) -> None:
        if not self.closed:
            self._file.flush()
        super().close()


class _NpyWriter:
    """The header has the number of rows, so it is written last, into the space that it will need."""

    _HEADER = 128

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(bytes(self._HEADER))
        self._shape = (0, 0)

    def append(self, rows: pa.Table, vectors: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        self._shape = (self._shape[0] + len(vectors), vectors.shape[1])

    def close(self) -> None:
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {self._shape}, }}"
        header = b"\x93NUMPY\x01\x00" + (self._HEADER - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(header + text.encode().ljust(self._HEADER - 11) + b"\n")
        self._file.close()


class _NpzWriter:
    """The embeddings are collected in a file, the other columns in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent)
        self._vectors = _NpyWriter(Path(self._folder.name) / "embedding.npy")
        self._rows: list[pa.Table] = []

    def append(self, rows: pa.Table, vectors: np.ndarray) -> None:
        _check_free(rows, ["embedding"])
        self._rows.append(_flat(rows))
        self._vectors.append(rows, vectors)

    def close(self) -> None:
        self._vectors.close()
        with self._folder, zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
            archive.write(Path(self._folder.name) / "embedding.npy", "embedding.npy")
            for column in self._rows[0].column_names if self._rows else []:
                cells = pa.chunked_array([chunk for rows in self._rows for chunk in rows.column(column).chunks])
                with archive.open(f"{column}.npy", "w", force_zip64=True) as file:
                    np.save(file, _as_array(cells), allow_pickle=False)


_WRITERS: dict[str, Callable[[Path], _Writer]] = {
    ".parquet": _ParquetWriter,
    ".csv": _CsvWriter,
    ".csv.gz": _gzip_writer,
    ".npy": _NpyWriter,
    ".npz": _NpzWriter,
}


def _as_array(cells: pa.ChunkedArray) -> np.ndarray:
    """Numbers as numbers; everything else as text, a missing cell as empty text."""
    if cells.null_count == 0 and _is_number(cells.type):
        return cells.to_numpy()
    return np.array([cell or "" for cell in cells.cast(pa.string()).to_pylist()], dtype=np.str_)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _flat(rows: pa.Table) -> pa.Table:
    """The rows, with text in place of types that have no other form in CSV."""
    return pa.table([_flat_column(name, rows.column(name)) for name in rows.column_names], names=rows.column_names)


def _flat_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if _is_number(kind) or pa.types.is_temporal(kind):
        return column
    if not pa.types.is_nested(kind):
        with suppress(pa.ArrowException):
            return column.cast(pa.string())
    raise DataError(f"The column {name!r} holds {kind}, which only a .parquet file can hold. Name an output .parquet.")


def _with_columns(rows: pa.Table, names: Sequence[str], columns: Sequence[pa.Array]) -> pa.Table:
    _check_free(rows, names)
    return pa.table([*rows.columns, *columns], names=[*rows.column_names, *names])


def _check_free(rows: pa.Table, names: Sequence[str]) -> None:
    """Raises a `DataError` if the rows already have a column of one of these names."""
    present = set(rows.column_names)
    if taken := [name for name in names if name in present]:
        raise DataError(f"The input already has a column {taken[0]!r}, the name of a column for the embedding. Rename the column.")
