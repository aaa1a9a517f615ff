"""Molecules that a caller passes: canonical SMILES, or the reason why a row cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..arguments import check_choice
from ..errors import InvalidSmilesError
from ..inference.inputs import molecule_rows
from ..molecules import shorten, standard_smiles

__all__ = ["Molecules", "check_valid", "read_molecules"]


class Molecules(NamedTuple):
    """N rows.

    Attributes:
        given: What the caller passed, as text.
        canonical: Canonical SMILES; empty for a row that cannot be used.
        reasons: Why a row cannot be used, by its index.
    """

    given: list[str]
    canonical: list[str]
    reasons: dict[int, str]


def read_molecules(X: Any, steps: Sequence[str], more: Callable[[str], str | None] | None = None) -> Molecules:
    """Reads SMILES or RDKit molecules: list, NumPy array, pandas or polars Series, pyarrow array, or a table of one column.

    Args:
        X: N molecules.
        steps: Steps of standardisation, see `molecules.standard_smiles`.
        more: Returns why a valid molecule cannot be used all the same, or None.

    Raises:
        InvalidSmilesError: If `X` is not a column of molecules, or is empty.
    """
    rows = molecule_rows(X)
    canonical: list[str] = []
    reasons: dict[int, str] = {}
    known: dict[str, str | None] = {}
    for index, row in enumerate(rows):
        try:
            smiles = standard_smiles(row, steps)
        except InvalidSmilesError as error:
            smiles, reasons[index] = "", str(error)
        else:
            if more is not None and smiles not in known:
                known[smiles] = more(smiles)
            if reason := known.get(smiles):
                smiles, reasons[index] = "", reason
        canonical.append(smiles)
    given = [row if isinstance(row, str) else smiles or shorten(row) for row, smiles in zip(rows, canonical)]
    return Molecules(given, canonical, reasons)


def check_valid(reasons: dict[int, str], rows: int, on_invalid: str, done: str) -> None:
    """Raises an error, or issues one warning, if some rows cannot be used.

    Args:
        reasons: Why a row cannot be used, by its index.
        rows: Number of all rows.
        on_invalid: "raise" or "nan".
        done: What is done with these rows, for the warning.

    Raises:
        InvalidSmilesError: If there are such rows and `on_invalid="raise"`.
        ConfigError: If `on_invalid` is another value.
    """
    check_choice("on_invalid", on_invalid, ("raise", "nan"))
    if not reasons:
        return
    index, reason = next(iter(sorted(reasons.items())))
    text = f"{len(reasons)} of {rows} rows cannot be used. The first, at index {index}: {reason}."
    if on_invalid == "raise":
        raise InvalidSmilesError(f'{text} Correct them, or pass on_invalid="nan": {done}.')
    warnings.warn(f"{text} {done[:1].upper()}{done[1:]}.", stacklevel=3)
