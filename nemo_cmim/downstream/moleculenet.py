"""ESOL, FreeSolv and Lipophilicity from files of MoleculeNet."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .datasets import RegressionData, load_csv

__all__ = ["SETS", "KnownSet", "load_moleculenet"]

SMILES = "smiles"


class KnownSet(NamedTuple):
    """A data set of MoleculeNet.

    Attributes:
        files: Names that its file may have.
        targets: Names that the column of measured values may have.
        unit: Unit of the measured values.
    """

    files: tuple[str, ...]
    targets: tuple[str, ...]
    unit: str


SETS = {
    "ESOL": KnownSet(
        ("esol.csv", "delaney-processed.csv"),
        ("target", "measured log solubility in mols per litre"),
        "log10 mol/L",
    ),
    "FreeSolv": KnownSet(("freesolv.csv", "SAMPL.csv"), ("target", "expt"), "kcal/mol"),
    "Lipophilicity": KnownSet(("lipophilicity.csv", "Lipophilicity.csv"), ("target", "exp"), "log10 D"),
}
"""The data sets by name: as files with the columns `smiles` and `target`, or as MoleculeNet's own downloads."""


def load_moleculenet(folder: Path, invalid_reason: Callable[[str], str | None] | None = None) -> list[RegressionData]:
    """Reads ESOL (1,128 rows), FreeSolv (642) and Lipophilicity (4,200).

    Args:
        folder: Folder of the files; for their names see `SETS`.
        invalid_reason: Returns why a molecule cannot be used, or None. Such rows are left out, listed in a warning and kept in
            `RegressionData.dropped`.

    Raises:
        DataError: If a file is missing or cannot be used.
    """
    loaded = []
    for name, known in SETS.items():
        path = next((folder / file for file in known.files if (folder / file).is_file()), None)
        if path is None:
            raise DataError(f"{folder} has no file of {name}. Add {' or '.join(known.files)}.")
        target = _target_column(path, known)
        loaded.append(load_csv(path, SMILES, target, name=name, unit=known.unit, on_invalid="drop", invalid_reason=invalid_reason))
    return loaded


def _target_column(path: Path, known: KnownSet) -> str:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    found = next((name for name in known.targets if name in header), None)
    if found is None or SMILES not in header:
        needed = f"{SMILES!r}, and {' or '.join(map(repr, known.targets))}"
        raise DataError(f"{path} has the columns {', '.join(map(repr, header))}, but needs {needed}. Rename its columns.")
    return found
