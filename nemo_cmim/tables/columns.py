"""Finds the columns of a file by their names or numbers."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import DataError

__all__ = ["check_columns", "column_index", "find_smiles_column", "listed", "named", "smiles_columns"]

_SMILES_COLUMNS = ("smiles", "canonicalsmiles", "isomericsmiles", "isosmiles")
_SHOWN = 20  # column names in an error message


def smiles_columns(names: Sequence[str]) -> list[int]:
    """Indices of the columns whose names say that they hold SMILES. Case, spaces, `_` and `-` do not matter."""
    return [i for i, name in enumerate(names) if re.sub(r"[\s_-]", "", name).lower() in _SMILES_COLUMNS]


def find_smiles_column(source: str, names: Sequence[str]) -> int:
    """Index of the only SMILES column.

    Raises:
        DataError: If there is none or more than one.
    """
    found = smiles_columns(names)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source} has {len(found)} columns that may hold the SMILES: {listed(names[i] for i in found)}. Name one with --smiles."
        )
    raise DataError(f"{source} has no column 'smiles'; its columns are {listed(names)}. Name the SMILES column with --smiles.")


def column_index(source: str, names: Sequence[str], column: str) -> int:
    """Index of a column by its name, in any case if no other has this name, or by its number, counted from 1.

    Raises:
        DataError: If there is no such column, or more than one.
    """
    for candidates in (
        [i for i, name in enumerate(names) if name == column],
        [i for i, name in enumerate(names) if name.strip().lower() == column.strip().lower()],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise DataError(f"{source} has {len(candidates)} columns {column!r}. Name its number instead, counted from 1.")
    if column.isdecimal() and 1 <= int(column) <= len(names):
        return int(column) - 1
    raise DataError(f"{source} has no column {column!r}; its columns are {listed(names)}. Choose one of them.")


def named(names: Sequence[str]) -> list[str]:
    """Names of columns. If several have none, as empty columns at the right of a table, they are called `column3` and so on."""
    unnamed = [i for i, name in enumerate(names) if not name.strip()]
    found, taken = list(names), set(names)
    for i in unnamed if len(unnamed) > 1 else ():
        found[i] = next(name for n in itertools.count() if (name := f"column{i + 1}{'_' * n}") not in taken)
    return found


def check_columns(source: str, names: Sequence[str]) -> None:
    """Checks that no two columns have the same name.

    Raises:
        DataError: If two have.
    """
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"{source} has {count} columns {name!r}; its columns are {listed(names)}. Rename one of them.")


def listed(names: Iterable[str]) -> str:
    """Names for a message, at most 20 of them."""
    every = list(names)
    more = f" and {len(every) - _SHOWN:,} more" if len(every) > _SHOWN else ""
    return ", ".join(map(repr, every[:_SHOWN])) + more
