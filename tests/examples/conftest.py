"""The scripts import what lies beside them, as Python lets a script do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from tests.examples.made_up import RINGS, write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cMIM for 31 tokens and a MIM for 29."""
    folder = tmp_path_factory.mktemp("models")
    return {"cmim": write_model(folder / "c.nemo", "cmim", 31), "mim": write_model(folder / "m.nemo", "mim", 29, seed=1)}


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Files as MoleculeNet has them; of FreeSolv's, one molecule is too long for the MIM and one for both."""
    folder = tmp_path / "moleculenet"
    folder.mkdir()
    rows = [f"{smiles}O,{len(smiles)}" for smiles in RINGS]
    (folder / "delaney-processed.csv").write_text("smiles,measured log solubility in mols per litre\n" + "\n".join(rows) + "\n")
    rows = [f"name,{smiles}N,{len(smiles)},0" for smiles in [*RINGS, "C" * 29, "C" * 40]]
    (folder / "SAMPL.csv").write_text("iupac,smiles,expt,calc\n" + "\n".join(rows) + "\n")
    rows = [f"CHEMBL1,{len(smiles)},CC(O){smiles}" for smiles in RINGS]
    (folder / "Lipophilicity.csv").write_text("CMPD_CHEMBLID,exp,smiles\n" + "\n".join(rows) + "\n")
    return folder
