"""Files of MoleculeNet."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cmim.downstream import load_moleculenet
from nemo_cmim.errors import DataError
from tests.evaluation.made_up import data_folder

__all__ = ["data_folder"]


def test_data_sets_are_found_by_the_names_of_files_and_columns(data_folder: Path) -> None:
    sets = load_moleculenet(data_folder)
    assert [(one.name, len(one), one.unit) for one in sets] == [
        ("ESOL", 30, "log10 mol/L"), ("FreeSolv", 32, "kcal/mol"), ("Lipophilicity", 30, "log10 D"),
    ]  # fmt: skip
    assert sets[0].targets[0] == 6 and sets[1].targets.any()


def test_missing_files_and_columns_are_named(data_folder: Path) -> None:
    file = data_folder / "SAMPL.csv"
    file.write_text(file.read_text().replace("expt", "measured"))
    with pytest.raises(DataError, match=r"SAMPL.csv has the columns .*'measured'.* Rename"):
        load_moleculenet(data_folder)
    file.unlink()
    with pytest.raises(DataError, match=r"has no file of FreeSolv\. Add freesolv.csv or SAMPL.csv"):
        load_moleculenet(data_folder)
