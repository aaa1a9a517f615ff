"""Reads molecules with measured properties from files. Every row that cannot be used is reported with its place and the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..arguments import check_choice
from ..errors import ConfigError, DataError, InvalidSmilesError
from ..molecules import standard_smiles
from ..steps import check_steps
from ..tables.columns import column_index
from ..tables.layout import DETECT, ReadOptions
from ..tables.rejects import RowProblem
from ..tables.rows import MoleculeTable
from .targets import WORDS_FOR_MISSING, check_label, is_missing, number
from .times import check_time, read_times
from .transforms import check_value

__all__ = ["Place", "PropertyColumns", "PropertyData", "read_property_data"]

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class PropertyColumns:
    """Columns of files with measured properties.

    Attributes:
        targets: Names, or numbers counted from 1, of the columns of the targets.
        task: "regression" or "classification".
        time: The column of times; None: it is not read.
        read: How the files are read, with the steps that change each molecule first.
        transform: Name of the transform of the targets, see `transforms.TRANSFORMS`.
    """

    targets: Sequence[str]
    task: str = "regression"
    time: str | None = None
    read: ReadOptions = DETECT
    transform: str | None = None


class Place(NamedTuple):
    """Where a row is: the file, and the number of its line, or of its row in a Parquet file."""

    source: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}"


@dataclass(frozen=True)
class PropertyData:
    """N rows that can be used.

    Attributes:
        smiles: N SMILES as given.
        targets: [N, T]; the columns have the names of those of the file. Numbers, or labels as given; NaN and None are missing values.
        times: N numbers or texts; None if they were not read.
        places: Where the rows are.
        left_out: The rows that cannot be used.
    """

    smiles: list[str]
    targets: pd.DataFrame
    times: list[Any] | None
    places: list[Place]
    left_out: list[RowProblem]


def read_property_data(
    sources: Sequence[str | Path],
    columns: PropertyColumns,
    *,
    on_invalid: str = "raise",
    invalid_reason: Callable[[str], str | None] | None = None,
    wording: Callable[[str], str] = str,
) -> PropertyData:
    """Reads tables with one molecule per row.

    Args:
        sources: Files, as `MoleculeTable` reads them. Their rows follow each other.
        columns: What is read.
        on_invalid: "raise", or "drop" to leave out the rows that cannot be used: without a valid SMILES, without the value of any target,
            with a value that cannot be used, or without a time that can be read.
        invalid_reason: Returns why a valid canonical SMILES cannot be used all the same, or None.
        wording: Changes reasons, for an interface whose options have other names than arguments in Python.

    Raises:
        ConfigError: If `on_invalid` or a step of standardisation is unknown, or a target is named twice.
        DataError: If a file is missing, empty or damaged, lacks a column or has two of one name; if no row can be used; if some times are
            numbers and others dates; or if a row cannot be used and `on_invalid="raise"`.
    """
    check_choice("on_invalid", on_invalid, ("raise", "drop"))
    found = PropertyData([], pd.DataFrame(), None if columns.time is None else [], [], [])
    rows: list[list[Any]] = []
    names: list[str] = []
    no_smiles = 0
    for source in sources:
        with MoleculeTable(source, columns.read, strict=False) as table:
            reader = _Reader(table, columns, invalid_reason)
            if names and reader.targets != names:
                raise DataError(f"{table.name} has the targets {reader.targets}, but {sources[0]} has {names}. Name them alike.")
            names = reader.targets
            for block in table.blocks(_ROWS_AT_ONCE):
                cells = [block.rows.column(index).to_pylist() for index in reader.indices]
                for index, (line, text) in enumerate(zip(block.numbers, block.smiles)):
                    try:
                        if text is None:
                            raise InvalidSmilesError(block.problems[index])
                        reader.check_smiles(text)
                        values, time = reader.values([column[index] for column in cells])
                    except (DataError, InvalidSmilesError) as error:
                        no_smiles += isinstance(error, InvalidSmilesError)
                        found.left_out.append(RowProblem(table.name, table.unit, line, text or "", wording(str(error))))
                        continue
                    found.smiles.append(text)
                    found.places.append(Place(table.name, table.unit, line))
                    rows.append(values)
                    if found.times is not None:
                        found.times.append(time)
            smiles_column = table.names[table.smiles_column]
    _check_rows(found, no_smiles, smiles_column, sources, on_invalid)
    targets = pd.DataFrame({name: pd.Series([row[place] for row in rows], dtype=object) for place, name in enumerate(names)})
    times = None if columns.time is None else _as_read(found, columns.time)
    return PropertyData(found.smiles, targets, times, found.places, found.left_out)


class _Reader:
    """Reads rows of a file.

    Attributes:
        indices: Indices of the columns of the targets, and of the times.
        targets: Names of the targets.
    """

    def __init__(self, table: MoleculeTable, columns: PropertyColumns, invalid_reason: Callable[[str], str | None] | None) -> None:
        wanted = [*columns.targets, *([] if columns.time is None else [columns.time])]
        self.indices = [column_index(table.name, table.names, name) for name in wanted]
        self._names = [table.names[index] for index in self.indices]
        self.targets = self._names[: len(columns.targets)]
        for index, name in zip(self.indices, self.targets):
            if self.targets.count(name) > 1:
                raise ConfigError(f"The target {name!r} is named twice. Name each target once.")
            if index == table.smiles_column:
                raise ConfigError(f"The column {name!r} of {table.name} is the SMILES column and a target. Name different columns.")
        self._steps = check_steps(columns.read.standardise)
        self._invalid_reason = invalid_reason
        self._is_label = columns.task == "classification"
        self._transform = columns.transform

    def check_smiles(self, text: str) -> None:
        canonical = standard_smiles(text, self._steps)
        if self._invalid_reason is not None and (reason := self._invalid_reason(canonical)):
            raise InvalidSmilesError(reason)

    def values(self, cells: Sequence[Any]) -> tuple[list[Any], Any]:
        """The targets and the time of a row."""
        targets = [
            self._label(name, cell) if self._is_label else self._number(name, cell) for name, cell in zip(self.targets, cells)
        ]
        if all(is_missing(value) for value in targets):
            noun = repr(self.targets[0]) if len(targets) == 1 else "the value of each target"
            raise DataError(f"{noun} is missing")
        if len(cells) == len(targets):
            return targets, None
        if is_missing(cells[-1]):
            raise DataError(f"the time, {self._names[-1]!r}, is missing")
        try:
            check_time(cells[-1])
        except DataError as error:
            raise DataError(f"the time, {self._names[-1]!r}, {error}") from None
        return targets, cells[-1]

    @staticmethod
    def _label(name: str, cell: Any) -> Any:
        try:
            check_label(cell)
        except DataError as error:
            raise DataError(f"{name!r} {error}") from None
        return cell

    def _number(self, name: str, cell: Any) -> float:
        try:
            value = number(cell)
            check_value(self._transform, value)
            return value
        except DataError as error:
            text = str(cell).strip()
            is_label = text.isalpha() and text[:3].lower() != "inf" and text not in WORDS_FOR_MISSING
            hint = ' (labels need task="classification")' if is_label else ""
            raise DataError(f"{name!r} {error}{hint}") from None


def _check_rows(found: PropertyData, no_smiles: int, smiles_column: str, sources: Sequence[str | Path], on_invalid: str) -> None:
    """Raises an error if there are no rows that can be used, or some that cannot and `on_invalid` is "raise"."""
    count = len(found.smiles) + len(found.left_out)
    if not count:
        raise DataError(f"{' and '.join(map(str, sources))} holds no rows.")
    if not found.left_out or (on_invalid == "drop" and found.smiles):
        return
    hint = ""
    if 2 * no_smiles > count:
        hint = f" {no_smiles:,} of {count:,} rows have no valid SMILES in the column {smiles_column!r}. Name another one with --smiles."
    elif len(found.left_out) > 1:
        hint = f" {len(found.left_out):,} of {count:,} rows cannot be used."
    way_out = 'Correct the file, or pass on_invalid="drop" to leave out and list such rows.' if found.smiles else "No row is left."
    raise DataError(f"{found.left_out[0]}.{hint} {way_out}")


def _as_read(found: PropertyData, name: str) -> list[Any]:
    """Times as numbers if all of them are: a text file does not tell them from dates."""
    times = found.times or []
    read = read_times(times, lambda row: f"{found.places[row]}: the time, {name!r},")
    return times if read.dtype.kind == "M" else read.tolist()
