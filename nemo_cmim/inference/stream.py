"""Embeds files of any size in flat memory: a block of rows is read, embedded and written, then the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import DataError, InvalidSmilesError
from .model import CMIMModel

__all__ = ["embed_file"]

ROWS_AT_ONCE = 8192
_TEXT = (".csv", ".tsv", ".smi", ".txt")
_PACKED = (".gz",)


def embed_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    *,
    column: str = "smiles",
    kind: str = "informative",
    on_invalid: str = "raise",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Adds an embedding to each row of a table.

    Args:
        model: The model.
        source: `.csv`, `.tsv` (with a header), `.smi`, `.txt` (SMILES and an id, white space between; a header line that begins with
            `smiles` is recognised), each also `.gz`; or `.parquet`.
        target: `.parquet`: the columns of `source` as they are, and `embedding`, a list of float32. `.csv`: the columns, and one for
            each dimension, `e0`, `e1`, ... Written whole or not at all.
        column: The column of SMILES (`.smi` and `.txt` have `smiles` and `id`).
        kind: "informative" or "mean".
        on_invalid: "raise", or "nan" to keep a row of NaN.
        batch_size: Most molecules in a batch; None chooses.
        overwrite: Replace `target`.
        progress: Called with the number of rows written, for each block.

    Returns:
        Rows written, as many as were read.

    Raises:
        DataError: A file or column that is not there, an empty or damaged file, an unknown suffix, or a target in the way.
        InvalidSmilesError: A molecule that cannot be used, with its row, unless `on_invalid="nan"`.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists already. Name another file, or replace it with --overwrite.")
    if target.suffix not in (".parquet", ".csv"):
        raise DataError(f"{target}: embeddings are written as .parquet or .csv, not {target.suffix or 'without a suffix'!r}.")
    if not source.is_file():
        raise DataError(f"There is no file {source}.")
    rows = 0
    with _errors_of(source), _writer(target) as write:
        for block in _blocks(source):
            if column not in block.column_names:
                raise DataError(f"{source} has no column {column!r}; its columns are {', '.join(block.column_names)}. Name one with --column.")
            vectors = _embed_block(model, block[column].to_pylist(), rows, source, kind, on_invalid, batch_size)
            write(block, vectors)
            rows += len(vectors)
            if progress:
                progress(len(vectors))
        if not rows:
            raise DataError(f"{source} holds no rows.")
    return rows


def _embed_block(
    model: CMIMModel, smiles: list[Any], first: int, source: Path, kind: str, on_invalid: str, batch_size: int | None
) -> np.ndarray:
    try:
        return model.embed(smiles, kind, on_invalid=on_invalid, batch_size=batch_size)
    except InvalidSmilesError as error:
        where = f"{source}, rows from {first} on (the first row of data is 0)"
        raise type(error)(f"{where}: {error} On the command line: --on-invalid nan.") from error


def _kind_of(path: Path) -> str:
    suffixes = [s for s in path.suffixes[-2:] if s not in _PACKED]
    return suffixes[-1] if suffixes else ""


def _blocks(source: Path) -> Iterator[pa.Table]:
    kind = _kind_of(source)
    if kind == ".parquet":
        with pyarrow.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch])
    elif kind in (".csv", ".tsv"):
        yield from _delimited_blocks(source, "\t" if kind == ".tsv" else ",")
    elif kind in (".smi", ".txt"):
        yield from _smi_blocks(source)
    else:
        raise DataError(f"{source}: molecules are read from {', '.join(_TEXT)} (also .gz) and .parquet, not {source.suffix!r}.")


def _delimited_blocks(source: Path, delimiter: str) -> Iterator[pa.Table]:
    """Every column as text, so that an id like 007 survives."""
    with _open(source) as file:
        head = file.read(1 << 20)
    if not head.strip():
        raise DataError(f"{source} is empty.")
    names = next(iter(_csv_rows(head.split(b"\n")[0].decode("utf-8-sig").rstrip("\r"), delimiter)))
    text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with _open(source) as file, pyarrow.csv.open_csv(
        file, pyarrow.csv.ReadOptions(block_size=1 << 20), parse, text
    ) as reader:  # fmt: skip
        for batch in reader:
            yield from _cut(pa.Table.from_batches([batch]))


def _csv_rows(line: str, delimiter: str) -> Iterator[list[str]]:
    import csv

    return csv.reader([line], delimiter=delimiter)


def _smi_blocks(source: Path) -> Iterator[pa.Table]:
    from ..data.readers import read_molecules

    smiles: list[str] = []
    ids: list[str] = []
    for line in read_molecules(source):
        fields = line.text.split()
        smiles.append(line.smiles)
        ids.append(fields[1] if len(fields) > 1 else "")
        if len(smiles) == ROWS_AT_ONCE:
            yield pa.table({"smiles": smiles, "id": ids})
            smiles, ids = [], []
    if smiles:
        yield pa.table({"smiles": smiles, "id": ids})


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(table), ROWS_AT_ONCE):
        yield table.slice(start, ROWS_AT_ONCE)


def _open(source: Path) -> Any:
    import gzip

    return gzip.open(source, "rb") if source.suffix == ".gz" else source.open("rb")


@contextmanager
def _errors_of(source: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, EOFError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} is damaged, cut short, or not what its name says ({error}).") from error


@contextmanager
def _writer(target: Path) -> Iterator[Callable[[pa.Table, np.ndarray], None]]:
    """Writes tables with their embeddings into a file beside `target` that takes its name at the end."""
    staging = target.with_name(f".{target.name}.{os.getpid()}.part")
    sink: Any = None

    def write(block: pa.Table, vectors: np.ndarray) -> None:
        nonlocal sink
        if target.suffix == ".parquet":
            values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            table = _append(block, {"embedding": values})
            sink = sink or pyarrow.parquet.ParquetWriter(staging, table.schema)
        else:
            table = _append(block, {f"e{i}": pa.array(vectors[:, i]) for i in range(vectors.shape[1])})
            sink = sink or pyarrow.csv.CSVWriter(staging, table.schema)
        sink.write_table(table)

    try:
        yield write
        if sink is not None:
            sink.close()
            os.replace(staging, target)
    finally:
        if sink is not None:
            sink.close()
        staging.unlink(missing_ok=True)


def _append(block: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        if name in block.column_names:
            raise DataError(f"The input has a column {name!r} already, which the embedding would take. Rename it.")
        block = block.append_column(name, values)
    return block
