"""Reads latents with the other columns of a file in blocks of rows, in constant memory.

The forms are those that `embed` writes: a NumPy array, an .npz file, Parquet with the column `embedding`, or text with the columns `e0`,
`e1`, ... They are recognised by content.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ..errors import DataError, InvalidShapeError
from .columns import check_columns, listed, smiles_columns
from .detection import PARQUET_MAGIC
from .layout import ReadOptions
from .rows import MoleculeTable
from .sources import READ_ERRORS, Source, damaged_file, open_source, reopenable
from .vectors import EMBEDDING, SCALE, metadata_of, scale_columns

__all__ = ["LatentBlock", "LatentTable"]

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_FIRST_COLUMN = re.compile(rb'(?:^|[,;|\t"])e0(?:[,;|\t"]|\s*$)', re.MULTILINE)
_ERRORS = (*READ_ERRORS, ValueError, zipfile.BadZipFile, pa.ArrowException)
_FORMS = "Latents are an array in .npy or .npz, the column embedding of .parquet, or the columns e0, e1, ... of .csv"


class LatentBlock(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        numbers: Numbers of the rows, see `LatentTable.unit`.
        latents: float32 [N, width]; of a row with a problem, at least the number with the problem is NaN.
        problems: Why a row has no latent, by its index in the block.
        rows: All other columns.
    """

    numbers: Sequence[int]
    latents: NDArray[np.float32]
    problems: dict[int, str]
    rows: pa.Table


class LatentTable:
    """A file of latents that is open for reading: a context manager.

    Args:
        where: A path, a URL, or `-`; see `sources.open_source`.
        width: Numbers of a latent.

    Attributes:
        name: What the user called the file, for messages.
        names: Names of the other columns.
        smiles_column: Index of the only one of these that holds SMILES, by its name; None if there is none or more than one.
        unit: What row numbers count, from 1: lines of text files, with the header; otherwise rows.
        embedding: How the rows were embedded, see `vectors.metadata`; None if the file does not say it.

    Raises:
        DataError: If the file is missing or damaged, or does not contain latents.
        InvalidShapeError: If its latents have a different width.
    """

    def __init__(self, where: str | Path, width: int) -> None:
        with ExitStack() as stack:
            source = stack.enter_context(open_source(where))
            self.name = source.name
            self._form = _form_of(source, width, stack)
            self.names, self.unit = self._form.names, self._form.unit
            self.embedding = self._form.embedding if isinstance(self._form, _Parquet) else None
            if self.names:
                check_columns(self.name, self.names)
            self._stack = stack.pop_all()
        found = smiles_columns(self.names)
        self.smiles_column = found[0] if len(found) == 1 else None

    def __enter__(self) -> LatentTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def blocks(self, max_rows: int) -> Iterator[LatentBlock]:
        """Yields all rows in blocks of at most `max_rows`, all but the last of this size. Can be called once.

        Raises:
            DataError: If the file is damaged.
        """
        return self._form.blocks(max_rows)

    def fraction_read(self) -> float | None:
        """The fraction of the file that has been read; None if its size is unknown."""
        return self._form.fraction_read()


def _form_of(source: Source, width: int, stack: ExitStack) -> _Arrays | _Parquet | _Text:
    name, head = source.name, source.head
    try:
        if head.startswith(_NPY_MAGIC):
            return _Arrays(name, {EMBEDDING: _Array(name, EMBEDDING, source.file)}, width)
        if head.startswith(PARQUET_MAGIC) or head.startswith(_ZIP_MAGIC):  # read from the end
            path, context = reopenable(source, plain=True)
            stack.enter_context(context)
            if head.startswith(PARQUET_MAGIC):
                return _Parquet(name, stack.enter_context(pyarrow.parquet.ParquetFile(path)), width)
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = [member for member in archive.namelist() if member.endswith(".npy")]
            arrays = {one[:-4]: _Array(name, one[:-4], stack.enter_context(archive.open(one))) for one in members}
            return _Arrays(name, arrays, width)
    except (DataError, InvalidShapeError):
        raise
    except _ERRORS as error:
        raise damaged_file(name, error, "row 0") from error
    if not head.strip():
        raise DataError(f"{name} is empty. {_FORMS}.")
    if not _FIRST_COLUMN.search(head):
        first = head.lstrip().split(b"\n")[0].decode("utf-8-sig", "backslashreplace").strip()
        raise DataError(f"{name} has no column 'e0'; its first line is {first[:100]!r}. {_FORMS}.")
    return _Text(stack.enter_context(MoleculeTable(source, ReadOptions(smiles="e0"))), width)


class _Array:
    """An array in the format of NumPy that is read row by row."""

    def __init__(self, source: str, name: str, file: IO[bytes]) -> None:
        self._source, self._file = source, file
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, is_fortran, self.dtype = read_header(file)
        if self.dtype.kind not in "fiubU":
            raise DataError(f"{source}: the array {name!r} holds {self.dtype}, not numbers or text. Save it as numbers.")
        if is_fortran and len(self.shape) > 1:
            raise DataError(f"{source}: the array {name!r} is stored by columns. Save numpy.ascontiguousarray(array).")

    def read(self, rows: int, done: int) -> NDArray:
        """The next rows, after `done` of them."""
        size = rows * prod(self.shape[1:]) * self.dtype.itemsize
        try:
            content = self._file.read(size)
        except (*READ_ERRORS, zipfile.BadZipFile) as error:
            raise damaged_file(self._source, error, f"row {done}") from error
        if len(content) < size:
            raise damaged_file(self._source, EOFError(f"the array ends before row {self.shape[0]}"), f"row {done}")
        return np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])


class _Arrays:
    """Latents [N, ...] and other columns [N], each an array."""

    unit = "row"

    def __init__(self, source: str, arrays: dict[str, _Array], width: int) -> None:
        wide = [name for name, array in arrays.items() if len(array.shape) > 1 and array.dtype.kind in "fiu"]
        key = EMBEDDING if EMBEDDING in arrays else wide[0] if len(wide) == 1 else None
        if key is None:
            raise DataError(f"{source} has the arrays {listed(arrays) or 'none'}, none of which is called 'embedding'. {_FORMS}.")
        self._latents = arrays.pop(key)
        shape = self._latents.shape
        if len(shape) < 2 or self._latents.dtype.kind not in "fiu":
            raise DataError(f"{source}: latents must be numbers [N, K * D], found {self._latents.dtype} {list(shape)}.")
        _check_width(source, prod(shape[1:]), width)
        self._columns = {name: array for name, array in arrays.items() if array.shape == shape[:1]}
        for name in arrays.keys() - self._columns.keys():
            warnings.warn(f"{source}: the array {name!r} is left out, since it is not a column of {shape[0]} rows.", stacklevel=2)
        self.names = list(self._columns)
        self._rows, self._done = shape[0], 0

    def blocks(self, max_rows: int) -> Iterator[LatentBlock]:
        for start in range(0, self._rows, max_rows):
            count = min(max_rows, self._rows - start)
            columns = [pa.array(array.read(count, start)) for array in self._columns.values()]
            with np.errstate(over="ignore"):  # infinity is a problem that the caller reports
                latents = self._latents.read(count, start).astype(np.float32).reshape(count, -1)
            self._done = start + count
            yield LatentBlock(range(start + 1, self._done + 1), latents, {}, pa.table(columns, names=self.names))

    def fraction_read(self) -> float | None:
        return self._done / self._rows if self._rows else 1.0


class _Parquet:
    """Parquet: lists of numbers in the column `embedding`, or numbers in the columns `e0`, `e1`, ..."""

    unit = "row"

    def __init__(self, source: str, file: pyarrow.parquet.ParquetFile, width: int) -> None:
        self._source, self._file, self._width, self._done = source, file, width, 0
        names = file.schema_arrow.names
        self._latents = [EMBEDDING] if EMBEDDING in names else _numbered(names)
        if not self._latents:
            raise DataError(f"{source} has no column 'embedding'; its columns are {listed(names)}. {_FORMS}.")
        kind = file.schema_arrow.field(EMBEDDING).type if EMBEDDING in names else None
        if kind is not None and not (_is_list(kind) and pa.types.is_primitive(kind.value_type)):
            raise DataError(f"{source}: the column 'embedding' holds {kind}, not lists of numbers. {_FORMS}.")
        if kind is None:
            _check_width(source, len(self._latents), width)
        self._scale = scale_columns(file.schema_arrow) if EMBEDDING in names else []
        self.embedding = metadata_of(file.schema_arrow) if EMBEDDING in names else None
        self.names = [name for name in names if name not in (*self._latents, *self._scale)]

    def blocks(self, max_rows: int) -> Iterator[LatentBlock]:
        try:
            for batch in self._file.iter_batches(max_rows):
                table = pa.Table.from_batches([batch])
                if self._latents == [EMBEDDING]:
                    latents, problems = _from_lists(table.column(EMBEDDING).to_pylist(), self._width)
                else:
                    latents, problems = _from_columns(table.select(self._latents))
                if self._scale:
                    latents *= table.column(SCALE).to_numpy()[:, None].astype(np.float32)
                numbers = range(self._done + 1, self._done + len(latents) + 1)
                self._done += len(latents)
                yield LatentBlock(numbers, latents, problems, table.drop_columns([*self._latents, *self._scale]))
        except (*READ_ERRORS, pa.ArrowException) as error:
            raise damaged_file(self._source, error, f"row {self._done}") from error

    def fraction_read(self) -> float | None:
        return self._done / self._file.metadata.num_rows if self._file.metadata.num_rows else 1.0


class _Text:
    """Text with the columns `e0`, `e1`, ..."""

    def __init__(self, table: MoleculeTable, width: int) -> None:
        self._table, self.unit = table, table.unit
        self._latents = _numbered(table.names)
        _check_width(table.name, len(self._latents), width)
        self.names = [name for name in table.names if name not in self._latents]

    def blocks(self, max_rows: int) -> Iterator[LatentBlock]:
        for block in self._table.blocks(max_rows):
            latents, problems = _from_columns(block.rows.select(self._latents))
            yield LatentBlock(block.numbers, latents, problems, block.rows.drop_columns(self._latents))

    def fraction_read(self) -> float | None:
        return self._table.fraction_read()


def _numbered(names: Sequence[str]) -> list[str]:
    """The columns `e0`, `e1`, ... up to the first number that is missing."""
    present = set(names)
    count = next(i for i in range(len(names) + 1) if f"e{i}" not in present)
    return [f"e{i}" for i in range(count)]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _check_width(source: str, found: int, width: int) -> None:
    if found != width:
        raise InvalidShapeError(f"{source} has latents of {found} numbers, but those of this model have {width}. Choose its model.")


def _from_lists(lists: Sequence[list[float | None] | None], width: int) -> tuple[NDArray[np.float32], dict[int, str]]:
    latents = np.full((len(lists), width), np.nan, np.float32)
    problems = {}
    for i, one in enumerate(lists):
        if not one:
            problems[i] = "no latent"
        elif len(one) != width:
            problems[i] = f"the latent has {len(one)} numbers, but those of this model have {width}"
        else:
            latents[i] = one  # None becomes NaN
    return latents, problems


def _from_columns(columns: pa.Table) -> tuple[NDArray[np.float32], dict[int, str]]:
    latents = np.full((columns.num_rows, columns.num_columns), np.nan, np.float32)
    problems: dict[int, str] = {}
    for place, (name, column) in enumerate(zip(columns.column_names, columns.columns)):
        try:
            latents[:, place] = column.cast(pa.float32(), safe=False).to_numpy()
        except pa.ArrowException:
            for i, cell in enumerate(column.to_pylist()):
                try:
                    latents[i, place] = float(cell)
                except (TypeError, ValueError):
                    problems.setdefault(
                        i, f"the column {name!r} contains {cell!r}, not a number" if cell else f"no number in {name!r}"
                    )
    return latents, problems
