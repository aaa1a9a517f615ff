"""Writes `molecules.smi` and `rejected.smi`: real SMILES from files that the RDKit wheel holds.

    python tests/real_smiles/collect.py

The files are those of RDKit 2026.9.1. Another version may hold other molecules.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from rdkit import Chem, RDConfig, rdBase

FOLDER = Path(__file__).parent
DATA, CONTRIB = Path(RDConfig.RDDataDir), Path(RDConfig.RDContribDir)
HARD = re.compile(r"[/\\%]|\[(?!N\+\]|O-\]|nH\]|C@@?H?\])")  # bonds with stereo, two-digit ring closures, less usual bracket atoms
LONGEST = 400


def nibr() -> list[str]:
    """PubChem's examples of the substructure filters of NIBR: the source of stereo, isotopes, charges and metals."""
    path = CONTRIB / "NIBRSubstructureFilters" / "SubstructureFilter_HitTriaging_wPubChemExamples.csv"
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return [row[f"EX{number}"] for row in csv.DictReader(file) for number in range(1, 6)]


def nci() -> list[str]:
    """The first compounds of the NCI Open Database, Kekulé forms, with ring closures above 9."""
    return [line.split("\t")[0] for line in (DATA / "NCI" / "first_5K.smi").read_text().splitlines()]


def wehi() -> list[str]:
    """Screening compounds."""
    with (DATA / "Pains" / "test_data" / "wehi_mols.csv").open(newline="") as file:
        return [row[0] for row in csv.reader(file)]


def zinc() -> list[str]:
    """The hundred molecules of ZINC with which the synthetic accessibility score is tested."""
    return [line.split("\t")[0] for line in (CONTRIB / "SA_Score" / "data" / "zim.100.txt").read_text().splitlines()[1:]]


def sample(smiles: list[str], every: int, *, hard: bool) -> Iterator[str]:
    """Every so many of the molecules, and if `hard`, all of those that `HARD` matches."""
    for number, one in enumerate(dict.fromkeys(smiles)):
        if one and len(one) <= LONGEST and (number % every == 0 or (hard and HARD.search(one))):
            yield one


def main() -> None:
    """Writes both files."""
    molecules = [*sample(nibr(), 3, hard=True), *sample(nci(), 40, hard=True), *sample(wehi(), 40, hard=False), *zinc()]
    with rdBase.BlockLogs():
        is_valid = {smiles: Chem.MolFromSmiles(smiles) is not None for smiles in molecules}
    for name, wanted in (("molecules.smi", True), ("rejected.smi", False)):
        (FOLDER / name).write_text("".join(f"{smiles}\n" for smiles, valid in is_valid.items() if valid == wanted))


if __name__ == "__main__":
    main()
