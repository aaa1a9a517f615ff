"""Reads a block of rows, computes and writes what a command finds for each of them, then reads the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from ..errors import ConfigError, DataError, InvalidSmilesError
from ..inference.unfinished import Unfinished, staging_of
from ..outputs import check_file
from ..steps import Steps
from ..tables.progress import Progress, reporter
from ..tables.rejects import RowProblem, Tally, rejects_file
from ..tables.row_writers import check_row_output, flat, name_column, row_writer, with_columns
from ..tables.rows import Block
from .repeats import repeated_warnings_once

if TYPE_CHECKING:  # with torch, which not all readers of rows need
    from ..inference import CMIMModel

__all__ = [
    "DEFAULTS",
    "ROWS_AT_ONCE",
    "Found",
    "StreamOptions",
    "Streamed",
    "check_outputs",
    "problems_of",
    "stream_rows",
    "unused",
]

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class StreamOptions:
    """Options of all commands that stream rows.

    Attributes:
        on_invalid: "raise", or "nan" to write an invalid row once, with empty cells in place of a result.
        rejects: CSV file to write with source, row number, SMILES and reason of each row without result.
        overwrite: Replace the outputs if they exist.
        progress: Called repeatedly with the number of rows done, and the fraction of the input that they are.
        wording: Changes reasons, for an interface whose options have other names than arguments in Python.
        reads: Other files that are read, such as that of the model, which no output may replace.

    Raises:
        ConfigError: If `on_invalid` is neither "raise" nor "nan".
    """

    on_invalid: str = "raise"
    rejects: str | Path | None = None
    overwrite: bool = False
    progress: Progress | None = None
    wording: Callable[[str], str] = str
    reads: tuple[str | Path, ...] = ()

    def __post_init__(self) -> None:
        if self.on_invalid not in ("raise", "nan"):
            raise ConfigError(f'on_invalid must be "raise" or "nan", found {self.on_invalid!r}.')


DEFAULTS = StreamOptions()


class Found(NamedTuple):
    """What was found for a row.

    Attributes:
        records: Values of the new columns: a row of output for each record. None of them: one row with empty cells.
        reason: Why there is no result; empty if there is one.
        is_valid: False if the row could not be used.
    """

    records: Sequence[Sequence[Any]]
    reason: str = ""
    is_valid: bool = True


class Streamed(NamedTuple):
    """What was read and written.

    Attributes:
        rows: Number of rows read.
        written: Number of rows written.
        invalid: Rows that could not be used.
        empty: Valid rows for which nothing was found.
    """

    rows: int
    written: int
    invalid: Tally
    empty: Tally


class Rows(Protocol):
    """A block of rows: `tables.rows.Block` or `tables.latents.LatentBlock`."""

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of the rows."""

    @property
    def rows(self) -> pa.Table:
        """Columns that are kept."""


class Table(Protocol):
    """An input that is open for reading: `MoleculeTable` or `LatentTable`."""

    name: str
    names: list[str]
    unit: str
    smiles_column: Any

    def blocks(self, max_rows: int) -> Iterator[Any]:
        """Yields all rows."""

    def fraction_read(self) -> float | None:
        """The fraction of the input that has been read."""


Compute = Callable[[int, Any, Callable[[int, int], None]], Sequence[Found]]
"""Of the index of the first row of a block in the input, the block, and a function that reports progress."""


def check_outputs(
    source: str | Path | None, target: str | Path, options: StreamOptions, others: Sequence[str | Path] = (), *, smi: bool = True
) -> None:
    """Checks that all outputs can be written, before the work begins.

    Args:
        source: The input, if there is one.
        target: The output, as `tables.row_writers.row_writer` writes it.
        options: With `rejects`, another output.
        others: Further outputs.
        smi: Whether the output can be a .smi file.

    Raises:
        DataError: See `outputs.check_file`.
    """
    used = [*options.reads, *([] if source is None else [source])]
    check_row_output(Path(target), overwrite=options.overwrite, others=used, smi=smi)
    for path in [*([] if options.rejects is None else [options.rejects]), *others]:
        check_file(path, overwrite=options.overwrite, others=[*used, target])
        used.append(path)


def stream_rows(
    table: Table,
    target: str | Path,
    columns: Mapping[str, pa.DataType],
    smiles: str,
    compute: Compute,
    options: StreamOptions,
    rows_at_once: int | None = None,
    unfinished: Unfinished | None = None,
) -> Streamed:
    """Writes the rows of a table with new columns. Call `check_outputs` before.

    Args:
        table: The input.
        target: The output.
        columns: Names and types of the new columns.
        smiles: The column that a .smi file holds.
        compute: What is found for each row of a block.
        options: Common options.
        rows_at_once: Rows of a block; None: `ROWS_AT_ONCE`.
        unfinished: The folder, opened, in which finished blocks are kept until the output is complete; None: they are not kept.

    Raises:
        DataError: If the input is empty or damaged, already has one of the new columns, or the output cannot hold its columns.
        InvalidSmilesError: If a row is invalid and `options.on_invalid` is "raise". The message contains the row.
    """
    if taken := [name for name in columns if name in table.names]:
        raise DataError(f"{table.name} already has a column {taken[0]!r}, the name of a new column. Rename the column.")
    invalid, empty = Tally(), Tally()
    rows = written = number = 0
    before = 0.0 if table.fraction_read() is not None else None
    with ExitStack() as stack:
        stack.enter_context(repeated_warnings_once())
        staging = staging_of(unfinished, "output", target)
        writer = stack.enter_context(row_writer(Path(target), smiles, name_column(table.names) or _smiles_name(table), staging))
        reject = stack.enter_context(rejects_file(options.rejects, staging_of(unfinished, "rejects", options.rejects)))
        for block in table.blocks(rows_at_once or ROWS_AT_ONCE):
            after = table.fraction_read()
            report = reporter(options.progress, rows, len(block.numbers), before, after)
            if not rows and not str(target).endswith((".parquet", ".smi")):
                flat(block.rows)  # raises the error for a column that CSV cannot hold before the work
            saved = _unpacked(unfinished.load(number)) if unfinished else None
            found = compute(rows, block, report) if saved is None else saved
            bad, missing = (_problems(table, block, found, options.wording, is_valid=is_valid) for is_valid in (False, True))
            if bad and options.on_invalid == "raise":
                raise InvalidSmilesError(f'{bad[0]}. Pass on_invalid="nan" to keep a row without result.')
            if unfinished and saved is None:
                unfinished.save(number, json.dumps(found).encode())
            result = _result(block.rows, found, columns)
            writer.append(result)
            reject(sorted([*bad, *missing], key=lambda row: row.number))
            invalid.add(bad)
            empty.add(missing)
            rows, number, before = rows + len(found), number + 1, after
            written += result.num_rows
            report(1, 1)
        if not rows:
            raise DataError(f"{table.name} holds no rows.")
    return Streamed(rows, written - writer.left_out, invalid, empty)


def _unpacked(saved: bytes | None) -> list[Found] | None:
    """What was found for a block that was saved as JSON; None if it is damaged."""
    try:
        return [Found(*one) for one in json.loads(saved or b"")]
    except ValueError:
        return None


def _smiles_name(table: Table) -> str | None:
    return None if table.smiles_column is None else table.names[table.smiles_column]


def _problems(
    table: Table, block: Rows, found: Sequence[Found], wording: Callable[[str], str], *, is_valid: bool
) -> list[RowProblem]:
    """The rows without result that are valid, or those that are not."""
    name = _smiles_name(table)
    cells = block.rows.column(name) if name else None
    return [
        RowProblem(table.name, table.unit, number, (cells[i].as_py() or "") if cells else "", wording(one.reason))
        for i, (number, one) in enumerate(zip(block.numbers, found))
        if one.reason and one.is_valid == is_valid
    ]


def _result(rows: pa.Table, found: Sequence[Found], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Each row, repeated for each of its records, with the new columns."""
    nothing = [[None] * len(columns)]
    records = [(i, record) for i, one in enumerate(found) for record in one.records or nothing]
    kept = rows.take(pa.array([i for i, _ in records], pa.int64())) if rows.num_columns else rows
    new = [pa.array([record[place] for _, record in records], kind) for place, kind in enumerate(columns.values())]
    return with_columns(kept, list(columns), new)


def problems_of(model: CMIMModel, block: Block, standardise: Steps) -> dict[int, str]:
    """Why the model cannot use rows of a block, by their index."""
    reasons = {i: block.problems.get(i) or model.invalid_reason(smiles, standardise) for i, smiles in enumerate(block.smiles)}
    return {i: reason for i, reason in reasons.items() if reason}


def unused(problems: Mapping[int, str], rows: int) -> list[Found]:
    """What is found for a block of which no row is computed: nothing, and the problems of some rows or of all."""
    return [Found((), problems.get(i, ""), is_valid=False) for i in range(rows)]
