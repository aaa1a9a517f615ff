"""Reads embedded libraries: a folder that `embed --scheduler` writes, or one Parquet file of `embed`."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ..distributed import LibraryManifest
from ..distributed.folder import Folder
from ..distributed.library import REASON
from ..errors import DataError
from ..tables.sources import READ_ERRORS, damaged_file, open_at
from ..tables.vectors import EMBEDDING, embeddings_of, metadata_of, scale_columns

__all__ = ["EmbeddedLibrary", "VectorBlock"]

_TAIL = 8  # bytes at the end of a Parquet file: the length of the metadata before them, and a mark
_BLOCK_ROWS = 8192


class VectorBlock(NamedTuple):
    """Vectors of consecutive rows.

    Attributes:
        rows: int64 [M], numbers of the rows in the library, counted from 0; without those that have no embedding.
        vectors: float32 [M, D].
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]


class EmbeddedLibrary:
    """An embedded library that is open for reading.

    Args:
        where: Folder or URL with a manifest, or a Parquet file.

    Attributes:
        name: What the user called it.
        embedding: How it was embedded, see `LibraryManifest`.
        digest: SHA-256: equal for equal libraries only.
        rows: Number of rows.
        columns: Name and type of each column, without those of the embedding.

    Raises:
        DataError: If it is missing, damaged, not complete, or was not written by `embed`.
    """

    def __init__(self, where: str | Path) -> None:
        self.name = str(where)
        is_folder = "://" in self.name or Path(where).is_dir()
        if not is_folder and not Path(where).exists():
            raise DataError(
                f"{where} is missing. Name a folder written by `nemo-cmim embed --scheduler`, or a Parquet file of `nemo-cmim embed`."
            )
        if not is_folder:
            self.digest = _digest_of(self.name)
            self._files = [self.name]
            with self._opened(0) as table:
                embedding, sizes = metadata_of(table.schema_arrow), [table.metadata.num_rows]
            if embedding is None:
                raise DataError(f"{where} does not say how it was embedded. Write it with `nemo-cmim embed` of this version.")
            self.embedding: dict[str, Any] = embedding
        else:
            manifest, folder = LibraryManifest.load(where), Folder.of(where)
            self._files = [folder / part["name"] for part in manifest.parts]
            sizes = [part["rows"] for part in manifest.parts]
            self.embedding, self.digest = manifest.embedding, manifest.digest
        self._stops = list(accumulate(sizes))
        self.rows = self._stops[-1]
        with self._opened(0) as table:
            added = (EMBEDDING, *scale_columns(table.schema_arrow), *([REASON] if is_folder else []))
            self.columns = [field for field in table.schema_arrow if field.name not in added]

    @contextmanager
    def _opened(self, number: int) -> Iterator[pyarrow.parquet.ParquetFile]:
        name = self._files[number]
        try:
            with open_at(name, 0) as file, pyarrow.parquet.ParquetFile(file) as table:
                yield table
        except (*READ_ERRORS, pa.ArrowException) as error:
            raise damaged_file(name, error) from error

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[VectorBlock]:
        """Yields the vectors of the rows from `start` to before `stop`, in order, without those that are invalid."""
        stop = self.rows if stop is None else stop
        for number, end in enumerate(self._stops):
            row = self._stops[number - 1] if number else 0
            if end <= start or row >= stop:
                continue
            with self._opened(number) as table:
                names = [EMBEDDING, *scale_columns(table.schema_arrow)]
                for batch in table.iter_batches(_BLOCK_ROWS, columns=names):
                    vectors = embeddings_of(pa.Table.from_batches([batch]))
                    rows = np.arange(row, row + len(vectors))
                    row += len(vectors)
                    keep = ~np.isnan(vectors).any(axis=1) & (rows >= start) & (rows < stop)
                    if keep.any():
                        yield VectorBlock(rows[keep], vectors[keep])

    def take(self, rows: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
        """The rows with these numbers, in their order; by default without embeddings. Only their row groups are read."""
        wanted, inverse = np.unique(rows, return_inverse=True)
        found = []
        for number in sorted({bisect_right(self._stops, row) for row in wanted.tolist()}):
            first = self._stops[number - 1] if number else 0
            here = wanted[(wanted >= first) & (wanted < self._stops[number])] - first
            with self._opened(number) as table:
                sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
                for group, end in enumerate(accumulate(sizes)):
                    some = here[(here >= end - sizes[group]) & (here < end)] - (end - sizes[group])
                    if len(some):
                        found.append(table.read_row_group(group, columns or [field.name for field in self.columns]).take(some))
        return pa.concat_tables(found).take(inverse)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of the rows with these numbers, float32 [N, D]."""
        with self._opened(0) as table:
            names = [EMBEDDING, *scale_columns(table.schema_arrow)]
        return embeddings_of(self.take(rows, names))


def _digest_of(path: str) -> str:
    """SHA-256 of the metadata at the end of a Parquet file, which hold sizes, places and statistics of all columns."""
    with open_at(path, 0) as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAIL, 0))
        length = int.from_bytes(file.read(_TAIL)[:4], "little") + _TAIL
        file.seek(max(size - length, 0))
        return hashlib.sha256(file.read()).hexdigest()
