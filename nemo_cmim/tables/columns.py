"""Finds the columns of a file by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError

__all__ = ["check_columns", "find_smiles_column", "missing_smiles_column"]

_SMILES_COLUMNS = ("smiles", "canonical_smiles")


def find_smiles_column(names: Sequence[str], column: str | None = None) -> int | None:
    """Index of the SMILES column in `names`, or None if there is none.

    Args:
        names: Names of all columns.
        column: Name of the SMILES column; None: `smiles` or `canonical_smiles` in upper or lower case.
    """
    if column is not None:
        return names.index(column) if column in names else None
    known = [name.strip().lower() for name in names]
    return next((known.index(name) for name in _SMILES_COLUMNS if name in known), None)


def missing_smiles_column(path: Path, column: str | None, found: Iterable[str]) -> DataError:
    """The error for a file in which `find_smiles_column` finds none; `found`: the fields of its first line."""
    expected = repr(column) if column is not None else " or ".join(map(repr, _SMILES_COLUMNS))
    return DataError(
        f"{path} has no column {expected}; its first line is {', '.join(map(repr, found))}. Name the SMILES column with --column."
    )


def check_columns(path: Path, names: Sequence[str], required: Iterable[str]) -> None:
    """Checks that each required column occurs once.

    Raises:
        DataError: If a column is missing or occurs more than once.
    """
    for column in required:
        if (count := names.count(column)) != 1:
            found, fix = (f"{count} columns", "Rename one of them") if count else ("no column", "Choose one of them by its name")
            raise DataError(f"{path} has {found} {column!r}; its columns are {', '.join(map(repr, names))}. {fix}.")
