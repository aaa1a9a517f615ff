"""Writes rows with their embeddings, block by block, to a file or to standard output."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..outputs import check_file, write_file
from .row_writers import CsvRows, ParquetRows, flat, gzip_rows, is_number, stdout_rows, with_columns
from .vectors import EMBEDDING, metadata

__all__ = ["OUTPUTS", "Append", "check_output", "embedding_writer"]

OUTPUTS = (".parquet", ".csv", ".csv.gz", ".npy", ".npz")

Append = Callable[[pa.Table, np.ndarray], None]


def check_output(path: Path, *, overwrite: bool, others: Iterable[str | Path]) -> None:
    """Checks that `embedding_writer` can write a file of this name; see `outputs.check_file` for the arguments.

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
    check_file(path, overwrite=overwrite, others=others)


class _Writer(Protocol):
    def append(self, rows: pa.Table, vectors: np.ndarray) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None:
        """Closes files that will be deleted, since there was an error."""


@contextmanager
def embedding_writer(path: Path, staging: Path | None = None, embedding: Mapping[str, Any] | None = None) -> Iterator[Append]:
    """Yields a function that appends rows with their embeddings, float32 [N, D]. A file is written atomically.

    A .parquet file gets one column `embedding` of lists; CSV, also for `-`, gets a column for each dimension: `e0`, `e1`, ... A .npy file
    gets the embeddings only, as one array; an .npz file gets the array `embedding` and one for each column of the rows: numbers, or text.
    Append at least one block.

    Args:
        path: The output.
        staging: See `outputs.write_file`.
        embedding: How the rows were embedded, for the metadata of a .parquet file.

    Raises:
        DataError: If the rows already have a column of that name, have a column or a cell that the format cannot hold, or cannot be
            written.
    """
    if str(path) == "-":
        writer: _Writer = _RowsWriter(stdout_rows())
        yield writer.append
        writer.close()
        return
    with write_file(path, overwrite=True, staging=staging) as temporary:
        if path.name.endswith(".parquet"):
            writer = _RowsWriter(ParquetRows(temporary), embedding)
        else:
            writer = _WRITERS[max((suffix for suffix in OUTPUTS if path.name.endswith(suffix)), key=len)](temporary)
        try:
            yield writer.append
        except BaseException:
            writer.discard()
            raise
        writer.close()


class _RowsWriter:
    """Adds the embeddings to the rows as columns: one of lists, or one of numbers for each dimension."""

    def __init__(self, rows: ParquetRows | CsvRows, embedding: Mapping[str, Any] | None = None) -> None:
        self._rows, self._metadata = rows, metadata(embedding) if embedding else None

    def append(self, rows: pa.Table, vectors: np.ndarray) -> None:
        if isinstance(self._rows, ParquetRows):
            names, columns = [EMBEDDING], [pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])]
        else:
            names, columns = [f"e{i}" for i in range(vectors.shape[1])], [pa.array(column) for column in vectors.T]
        _check_free(rows, names)
        self._rows.append(with_columns(rows, names, columns).replace_schema_metadata(self._metadata))

    def close(self) -> None:
        self._rows.close()

    def discard(self) -> None:
        with suppress(OSError, pa.ArrowException):  # the first error is raised, not that of the last rows
            self._rows.close()


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

    def discard(self) -> None:
        with suppress(OSError):
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
        self._rows.append(flat(rows))
        self._vectors.append(rows, vectors)

    def close(self) -> None:
        self._vectors.close()
        with self._folder, zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
            archive.write(Path(self._folder.name) / "embedding.npy", "embedding.npy")
            for column in self._rows[0].column_names if self._rows else []:
                cells = pa.chunked_array([chunk for rows in self._rows for chunk in rows.column(column).chunks])
                with archive.open(f"{column}.npy", "w", force_zip64=True) as file:
                    np.save(file, _as_array(column, cells), allow_pickle=False)

    def discard(self) -> None:
        self._vectors.discard()
        self._folder.cleanup()


_WRITERS: dict[str, Callable[[Path], _Writer]] = {
    ".csv": lambda path: _RowsWriter(CsvRows(path)),
    ".csv.gz": lambda path: _RowsWriter(gzip_rows(path)),
    ".npy": _NpyWriter,
    ".npz": _NpzWriter,
}


def _as_array(name: str, cells: pa.ChunkedArray) -> np.ndarray:
    """Numbers as numbers; everything else as text, a missing cell as empty text."""
    if cells.null_count == 0 and is_number(cells.type):
        return cells.to_numpy()
    texts = [cell or "" for cell in cells.cast(pa.string()).to_pylist()]
    if any(text.endswith("\0") for text in texts):
        raise DataError(
            f"The column {name!r} has a cell that ends with U+0000, which an .npz file cannot hold. Name an output .parquet."
        )
    return np.array(texts, dtype=np.str_)


def _check_free(rows: pa.Table, names: Sequence[str]) -> None:
    """Raises a `DataError` if the rows already have a column of one of these names."""
    present = set(rows.column_names)
    if taken := [name for name in names if name in present]:
        raise DataError(f"The input already has a column {taken[0]!r}, the name of a column for the embedding. Rename the column.")
