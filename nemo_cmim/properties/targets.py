"""Target values of property models: numbers, or labels of classes; some may be missing.

Shape letters: N rows, T targets.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import DataError
from ..molecules import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WORDS_FOR_MISSING", "Targets", "check_label", "check_varied", "contradictions", "is_missing", "number", "read_targets"]

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
WORDS_FOR_MISSING = ("NA", "N/A", "n/a", "<NA>", "NULL")
"""What other programs write for a missing value. They are errors, since they could also be classes."""
_SPREADSHEET_ERROR = re.compile(
    r"#(N/A|NV|GETTING_DATA|[^\W\d_][\w/]*[!?])|Err:\d{3}", re.IGNORECASE
)  # #VALUE!, #NAME?; of LibreOffice
_MAX_CLASSES = 1000
_AT_INDEX = "The target {name!r} at index {row} {error}. Correct the value, or leave it empty (missing)."


class Targets(NamedTuple):
    """Targets of N rows.

    Attributes:
        names: Names of the T targets.
        values_NT: float64; for classification codes, the index of the label in `classes`. NaN: missing.
        classes: For classification, the sorted labels of each target; empty for regression.
        one_column: Whether the caller passed one value for each row, not a table.
    """

    names: tuple[str, ...]
    values_NT: NDArray[np.float64]
    classes: tuple[NDArray[Any], ...] = ()
    one_column: bool = True


def number(cell: Any) -> float:
    """A target value as a number; NaN if it is missing, see `is_missing`.

    Raises:
        DataError: If it is text that is not a number, for example with a unit or a decimal comma, or if it is infinite. The message
            continues a sentence that names the place.
    """
    if is_missing(cell):
        return math.nan
    check_label(cell)
    text = str(cell).strip()
    try:
        value = float(text.replace("_", "?"))  # Python parses 1_000 as a number, but it is not one in a CSV file
    except ValueError:
        hint = ". Write a decimal point, not a comma" if _DECIMAL_COMMA.fullmatch(text) else ""
        raise DataError(f"is {shorten(text)}, not a number{hint}") from None
    if math.isinf(value):
        raise DataError(f"is {text!r}, not a finite number")
    return value


def check_label(cell: Any) -> None:
    """Checks that a cell is not what programs write in place of a value, such as `#N/A`, `#DIV/0!` or `NA`.

    Raises:
        DataError: If it is. The message continues a sentence that names the place.
    """
    if isinstance(cell, str) and cell.strip() in WORDS_FOR_MISSING:
        raise DataError(
            f"is {cell.strip()}, which many programs write for a missing value. Leave the cell empty if it is missing, or name the class "
            "differently"
        )
    if isinstance(cell, str) and _SPREADSHEET_ERROR.fullmatch(cell.strip()):
        raise DataError(f"is {shorten(cell.strip())}, an error of a spreadsheet, not a value")


def read_targets(y: Any, task: str) -> Targets:
    """Reads targets.

    Args:
        y: [N] or [N, T]: list, NumPy array, Series or DataFrame of pandas or polars, or a pyarrow array or table.
        task: "regression" or "classification".

    Raises:
        DataError: If `y` has no rows or more than two dimensions, if two columns have the same name, or if a value cannot be used.
    """
    names, columns, one_column = _columns(y)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"Two targets have the name {twice!r}. Rename one of them.")
    read = [_numbers(name, column) if task == "regression" else _codes(name, column) for name, column in zip(names, columns)]
    values_NT = np.stack([values for values, _ in read], axis=1)
    classes = tuple(labels for _, labels in read if labels is not None)
    return Targets(tuple(names), values_NT, classes, one_column)


def check_varied(targets: Targets) -> None:
    """Raises a `DataError` if a target has no value, or the same one in all rows."""
    for number, (name, values_N) in enumerate(zip(targets.names, targets.values_NT.T)):
        found = np.unique(values_N[~np.isnan(values_N)])
        if len(found) > 1:
            continue
        if not len(found):
            state = "has no value"
        elif targets.classes:
            state = f"has only the class {_plain(targets.classes[number][int(found[0])])!r}"
        else:
            state = f"is constant: {found[0]}"
        raise DataError(f"The target {name!r} {state}, so there is nothing to predict. Use other data.")


def contradictions(smiles: Sequence[str], targets: Targets, rows: NDArray[np.int64]) -> pd.DataFrame:
    """Molecules whose rows have different classes, or values that differ by more than one standard deviation of the target.

    A warning says how many there are, with the first.

    Args:
        smiles: N canonical SMILES.
        targets: Their targets.
        rows: Index of each row in the caller's table.

    Returns:
        `smiles, target, rows, lowest, highest`.
    """
    found = []
    for number, name in enumerate(targets.names):
        table = pd.DataFrame({"smiles": smiles, "value": targets.values_NT[:, number], "row": rows}).dropna()
        limit = 0.0 if targets.classes else float(table["value"].std())
        for text, of_molecule in table[table.duplicated("smiles", keep=False)].groupby("smiles", sort=False):
            low, high = of_molecule["value"].min(), of_molecule["value"].max()
            if high - low > limit:
                ends = [targets.classes[number][int(end)] if targets.classes else end for end in (low, high)]
                found.append([text, name, of_molecule["row"].tolist(), *ends])
    table = pd.DataFrame(found, columns=["smiles", "target", "rows", "lowest", "highest"])
    if found:
        text, name, where, low, high = found[0]
        warnings.warn(
            f"{len(found)} molecules have rows that contradict each other; all rows are used. The first: {text}, target {name!r}, rows "
            f"{where}: {low} and {high}.",
            stacklevel=3,
        )
    return table


def _columns(y: Any) -> tuple[list[str], list[Sequence[Any]], bool]:
    """Names of the targets, their columns, and whether `y` was one column without the second dimension."""
    if y is None:
        raise DataError("PropertyModel requires y to be passed, but the target y is None. Pass one value for each molecule.")
    if hasattr(y, "to_pandas"):  # polars and pyarrow
        y = y.to_pandas()
    if hasattr(y, "columns") and hasattr(y, "iloc"):
        table = [y.iloc[:, number].tolist() for number in range(y.shape[1])]
        names = [str(name) for name in y.columns]
        if not table:
            raise DataError("y is a table without columns. Pass one column for each target.")
    else:
        name = getattr(y, "name", None)
        rows = np.asarray(y.tolist() if hasattr(y, "tolist") else list(y), dtype=object)
        if rows.ndim == 1:
            return ["target" if name is None else str(name)], [_filled(rows)], True
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise DataError(f"y must have the shape [N] or [N, T], found {list(rows.shape)}.")
        table = list(rows.T)
        names = [f"target{number}" for number in range(rows.shape[1])] if rows.shape[1] > 1 else ["target"]
    return names, [_filled(column) for column in table], False


def _filled(column: Any) -> Sequence[Any]:
    if len(column) == 0:
        raise DataError("y is empty. Pass one value for each molecule.")
    return column


def _numbers(name: str, column: Sequence[Any]) -> tuple[NDArray[np.float64], None]:
    values = np.empty(len(column))
    for row, cell in enumerate(column):
        try:
            values[row] = number(cell)
        except DataError as error:
            raise DataError(_AT_INDEX.format(name=name, row=row, error=error)) from None
    return values, None


def _codes(name: str, column: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Codes of labels, and the sorted labels: text, bool or whole numbers."""
    known = [(row, _label(name, row, cell)) for row, cell in enumerate(column) if not is_missing(cell)]
    kinds = {type(label) for _, label in known}
    if len(kinds) > 1:
        shown = ", ".join(repr(next(label for _, label in known if type(label) is kind)) for kind in sorted(kinds, key=str))
        raise DataError(f"The target {name!r} has labels of different types, for example {shown}. Use one type.")
    labels = sorted({label for _, label in known})
    if len(labels) > _MAX_CLASSES:
        raise DataError(
            f"The target {name!r} has {len(labels):,} classes, more than {_MAX_CLASSES:,}. For numbers use task='regression'."
        )
    code = {label: number for number, label in enumerate(labels)}
    values = np.full(len(column), np.nan)
    for row, label in known:
        values[row] = code[label]
    return values, np.array(labels)


def _label(name: str, row: int, cell: Any) -> str | bool | int:
    cell = _plain(cell)
    if isinstance(cell, str):
        try:
            check_label(cell)
        except DataError as error:
            raise DataError(_AT_INDEX.format(name=name, row=row, error=error)) from None
        return cell.strip()
    if isinstance(cell, (bool, int)):
        return cell
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    raise DataError(
        f"The target {name!r} at index {row} is {shorten(cell)}. Unknown label type: labels of classes must be text, bool or whole "
        "numbers. For numbers use task='regression'."
    )


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python object."""
    return value.item() if isinstance(value, np.generic) else value


def is_missing(cell: Any) -> bool:
    """True for None, NaN (also as text), NA and NaT of pandas, and empty text."""
    if (
        cell is None
        or (isinstance(cell, str) and cell.strip().lower() in ("", "nan"))
        or type(cell).__name__ in ("NAType", "NaTType")
    ):
        return True
    return isinstance(cell, (float, np.floating)) and math.isnan(cell)
