"""Writes rows, block by block, as Parquet, CSV or a list of SMILES, to a file or to standard output."""

from __future__ import annotations

import gzip
import io
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import DataError
from ..outputs import check_file, write_file

__all__ = [
    "ROW_OUTPUTS",
    "CsvRows",
    "ParquetRows",
    "SmiRows",
    "check_row_output",
    "flat",
    "gzip_rows",
    "is_number",
    "name_column",
    "row_writer",
    "stdout_rows",
    "with_columns",
]

ROW_OUTPUTS = (".csv", ".csv.gz", ".parquet", ".smi")

_LINE_END = re.compile(r"[\r\n]")


class RowWriter(Protocol):
    """Writes blocks of rows that have the same columns.

    Attributes:
        left_out: Number of rows that the format cannot hold.
    """

    left_out: int

    def append(self, rows: pa.Table) -> None:
        """Writes rows."""

    def close(self) -> None:
        """Completes the file."""


def check_row_output(path: Path, *, overwrite: bool, others: Iterable[str | Path], smi: bool = True) -> None:
    """Checks that `row_writer` can write a file of this name; see `outputs.check_file` for the other arguments.

    Args:
        path: The file, or `-`.
        overwrite: Allow that it exists.
        others: Inputs and other outputs.
        smi: Whether the rows can be written as a list of SMILES.

    Raises:
        DataError: If its suffix is not one of `ROW_OUTPUTS`; see `outputs.check_file` for others.
    """
    if str(path) == "-":
        return
    if not path.name.endswith(ROW_OUTPUTS) and not path.is_dir():
        outputs = [suffix for suffix in ROW_OUTPUTS if smi or suffix != ".smi"]
        raise DataError(
            f"{path}: rows are written as {', '.join(outputs)}, not {path.suffix or 'without a suffix'!r}; -o - writes CSV to standard "
            "output."
        )
    if path.name.endswith(".smi") and not smi:
        raise DataError(f"{path}: a .smi file holds only SMILES and names, not the result. Name an output .csv or .parquet.")
    check_file(path, overwrite=overwrite, others=others)


@contextmanager
def row_writer(path: Path, smiles: str, name: str | None, staging: Path | None = None) -> Iterator[RowWriter]:
    """Yields a writer of rows. A file is written atomically. A warning reports rows that it cannot hold.

    Args:
        path: The output, which is replaced if it exists. `-` is CSV on standard output.
        smiles: The column of SMILES that a .smi file holds.
        name: The column of the names in a .smi file; None: it holds only SMILES.
        staging: See `outputs.write_file`.

    Raises:
        DataError: If the rows have a column or a cell that the format cannot hold, or cannot be written.
    """
    if str(path) == "-":
        writer: RowWriter = stdout_rows()
        yield writer
        writer.close()
        return
    with write_file(path, overwrite=True, staging=staging) as temporary:
        if path.name.endswith(".smi"):
            writer = SmiRows(temporary, smiles, name)
        elif path.name.endswith(".parquet"):
            writer = ParquetRows(temporary)
        else:
            writer = gzip_rows(temporary) if path.name.endswith(".gz") else CsvRows(temporary)
        try:
            yield writer
        finally:
            writer.close()
    if writer.left_out:
        warnings.warn(f"{path} does not contain {writer.left_out:,} rows without a SMILES, which .smi cannot hold.", stacklevel=2)


class ParquetRows:
    """A Parquet file. Its columns are those of the first block."""

    left_out = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def append(self, rows: pa.Table) -> None:
        """Writes rows."""
        self._writer = self._writer or pyarrow.parquet.ParquetWriter(self._path, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.close()


class CsvRows:
    """CSV text with a header. Writes to the first of the files; all are closed in this order."""

    left_out = 0

    def __init__(self, *files: Path | IO[bytes]) -> None:
        self._files = files
        self._writer: Any = None

    def append(self, rows: pa.Table) -> None:
        """Writes rows.

        Raises:
            DataError: If a column cannot be written as text.
        """
        rows = flat(rows)
        self._writer = self._writer or pyarrow.csv.CSVWriter(self._files[0], rows.schema)
        self._writer.write_table(rows)

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.close()
        for file in self._files:
            if not isinstance(file, Path):
                file.close()


class SmiRows:
    """A list of SMILES, one in a line, each followed by a space and its name.

    Args:
        path: The file.
        smiles: Name of the column of SMILES. A row without SMILES is left out.
        name: Name of the column of names; None: there are none.
    """

    def __init__(self, path: Path, smiles: str, name: str | None) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._smiles, self._name, self.left_out = smiles, name, 0

    def append(self, rows: pa.Table) -> None:
        """Writes rows.

        Raises:
            DataError: If a name contains a line end.
        """
        names = [""] * rows.num_rows if self._name is None else _texts(rows.column(self._name))
        for smiles, name in zip(_texts(rows.column(self._smiles)), names):
            if _LINE_END.search(name):
                raise DataError(
                    f"The name {name!r} contains a line end, which a .smi file cannot hold. Name an output .csv or .parquet."
                )
            if smiles:
                self._file.write(f"{smiles} {name}\n" if name else f"{smiles}\n")
            else:
                self.left_out += 1

    def close(self) -> None:
        """Completes the file."""
        self._file.close()


def name_column(names: Sequence[str]) -> str | None:
    """The column of names of molecules: the first called `name`, else `id`, else one that ends with `_id`; None if there is none."""
    lower = {name: name.strip().lower() for name in names}
    for is_name in ("name".__eq__, "id".__eq__, lambda text: text.endswith("_id")):
        if found := [name for name in names if is_name(lower[name])]:
            return found[0]
    return None


def gzip_rows(path: Path) -> CsvRows:
    """Compressed CSV text."""
    file = path.open("wb")
    return CsvRows(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0), file)  # type: ignore[arg-type]


def stdout_rows() -> CsvRows:
    """CSV text on standard output, which stays open."""
    return CsvRows(_KeptOpen(sys.stdout.buffer))  # type: ignore[arg-type]


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


def is_number(kind: pa.DataType) -> bool:
    """Whether cells of this type are numbers or booleans."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def flat(rows: pa.Table) -> pa.Table:
    """The rows, with text in place of types that have no other form in CSV.

    Raises:
        DataError: If a column holds lists or other nested values.
    """
    return pa.table([_flat_column(name, rows.column(name)) for name in rows.column_names], names=rows.column_names)


def _flat_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if is_number(kind) or pa.types.is_temporal(kind):
        return column
    if not pa.types.is_nested(kind):
        with suppress(pa.ArrowException):
            return column.cast(pa.string())
    raise DataError(f"The column {name!r} holds {kind}, which only a .parquet file can hold. Name an output .parquet.")


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [cell or "" for cell in column.cast(pa.string()).to_pylist()]


def with_columns(rows: pa.Table, names: Sequence[str], columns: Sequence[pa.Array]) -> pa.Table:
    """The rows with further columns."""
    return pa.table([*rows.columns, *columns], names=[*rows.column_names, *names])
