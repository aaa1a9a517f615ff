"""Embeds files of any size in flat memory: a block of rows is read, embedded and written, then the next."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import DataError, InvalidSmilesError
from ..tables.readers import read_molecules
from .model import CMIMModel

__all__ = ["embed_file"]

ROWS_AT_ONCE = 8192


def embed_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    *,
    column: str = "smiles",
    kind: str = "informative",
    layers: Sequence[int] | None = None,
    on_invalid: str = "raise",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Adds an embedding to each row of a table.

    Args:
        model: The model.
        source: `.csv`, `.tsv` (with a header), also `.gz`; `.smi`, `.txt` (as `data.readers` reads them; the output has `smiles`, and
            in `id` all else that the line holds); or `.parquet`.
        target: `.parquet`: the columns of `source` as they are, and `embedding`, a list of float32. `.csv`: the columns, and one for
            each dimension, `e0`, `e1`, ... Written whole or not at all.
        column: The column of SMILES.
        kind: "informative" or "mean".
        layers: As `CMIMModel.embed`.
        on_invalid: "raise", or "nan" to keep a row of NaN.
        batch_size: Most molecules in a batch; None chooses.
        overwrite: Replace `target`.
        progress: Called with the number of rows written, for each block.

    Returns:
        Rows written, as many as were read.

    Raises:
        ConfigError: A kind or layers that the model does not have.
        DataError: A file or column that is not there, an empty or damaged file, an unknown suffix, or a target in the way.
        InvalidSmilesError: A molecule that cannot be used, with its row, unless `on_invalid="nan"`.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists already. Name another file, or replace it with --overwrite.")
    if target.suffix not in (".parquet", ".csv"):
        raise DataError(f"{target}: embeddings are written as .parquet or .csv, not {target.suffix or 'without a suffix'!r}.")
    if not target.parent.is_dir():
        raise DataError(f"There is no folder {target.parent} to write {target.name} into. Make it first.")
    if not source.is_file():
        raise DataError(f"There is no file {source}.")
    rows = 0
    with _writer(target) as write:
        for block in _blocks(source, column):
            smiles = block["smiles" if _kind_of(source) in (".smi", ".txt") else column].to_pylist()
            try:
                vectors = model.embed(smiles, kind, layers=layers, on_invalid=on_invalid, batch_size=batch_size, first_index=rows)
            except InvalidSmilesError as error:
                raise type(error)(f"{source}, rows counted from 0: {error} On the command line: --on-invalid nan.") from error
            write(block, vectors)
            rows += len(vectors)
            if progress:
                progress(len(vectors))
        if not rows:
            raise DataError(f"{source} holds no rows.")
    return rows


def _kind_of(path: Path) -> str:
    return Path(path.name.removesuffix(".gz").removesuffix(".xz")).suffix


def _blocks(source: Path, column: str) -> Iterator[pa.Table]:
    """The rows of `source` in tables of at most `ROWS_AT_ONCE`, with the column of SMILES checked."""
    kind = _kind_of(source)
    try:
        if kind == ".parquet":
            yield from _parquet_blocks(source, column)
        elif kind in (".csv", ".tsv"):
            yield from _delimited_blocks(source, column, "\t" if kind == ".tsv" else ",")
        elif kind in (".smi", ".txt"):
            yield from _smi_blocks(source, column)
        else:
            raise DataError(
                f"{source}: molecules are read from .csv, .tsv, .smi, .txt (also .gz) and .parquet, not {source.suffix!r}."
            )
    except (pa.ArrowInvalid, EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{source} is damaged, cut short, or not what its name says ({error}).") from error


def _check_columns(source: Path, names: list[str], column: str) -> None:
    if column not in names:
        raise DataError(f"{source} has no column {column!r}; its columns are {', '.join(names)}. Name one with --column.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has two columns {twice!r}. Rename one.")


def _parquet_blocks(source: Path, column: str) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(source) as file:
        _check_columns(source, file.schema_arrow.names, column)
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])


def _delimited_blocks(source: Path, column: str, delimiter: str) -> Iterator[pa.Table]:
    """Every column as text, so that an id like 007 survives; an empty line of a one-column file is an empty SMILES."""
    with _open(source) as file:
        head = file.readline().decode("utf-8-sig").rstrip("\r\n")
    if not head:
        raise DataError(f"{source} is empty.")
    names = next(csv.reader([head], delimiter=delimiter))
    _check_columns(source, names, column)
    text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False)
    with _open(source) as file, pyarrow.csv.open_csv(file, pyarrow.csv.ReadOptions(block_size=1 << 20), parse, text) as reader:
        for batch in reader:
            for start in range(0, len(batch), ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch.slice(start, ROWS_AT_ONCE)])


def _smi_blocks(source: Path, column: str) -> Iterator[pa.Table]:
    lines = read_molecules(source, None if column == "smiles" else column)
    while chunk := list(itertools.islice(lines, ROWS_AT_ONCE)):
        others = [" ".join(line.text.replace(line.smiles, " ", 1).split()) for line in chunk]
        yield pa.table({"smiles": [line.smiles for line in chunk], "id": others})


def _open(source: Path) -> Any:
    return gzip.open(source, "rb") if source.suffix == ".gz" else source.open("rb")


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
