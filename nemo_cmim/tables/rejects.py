"""Rows that a command could not use, with their places and reasons."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..outputs import write_file

__all__ = ["RowProblem", "Tally", "rejects_file"]

_EXAMPLES = 3


class RowProblem(NamedTuple):
    """A row that could not be used.

    Attributes:
        source: Name of the input.
        unit: What row numbers count, see `rows.MoleculeTable`.
        number: Number of the row.
        smiles: Its SMILES, not validated.
        reason: Why it could not be used.
    """

    source: str
    unit: str
    number: int
    smiles: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}: {self.reason}"


class Tally:
    """Counts rows with problems.

    Attributes:
        total: Number of rows.
        examples: The first of them, as lines for the user.
    """

    def __init__(self) -> None:
        self.total = 0
        self.examples: list[str] = []

    def add(self, rows: Sequence[RowProblem]) -> None:
        """Counts rows."""
        self.total += len(rows)
        self.examples += map(str, rows[: _EXAMPLES - len(self.examples)])


@contextmanager
def rejects_file(
    path: str | Path | None, staging: Path | None = None, reason: str = "reason"
) -> Iterator[Callable[[Sequence[RowProblem]], None]]:
    """Yields a function that writes rows to a CSV file, or that does nothing without a path.

    Args:
        path: The file, which is replaced if it exists.
        staging: See `outputs.write_file`.
        reason: Name of the column of reasons.
    """
    if path is None:
        yield lambda _: None
        return
    with write_file(path, overwrite=True, staging=staging) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "row", "smiles", reason))
        yield lambda rows: writer.writerows((row.source, row.number, row.smiles, row.reason) for row in rows)
