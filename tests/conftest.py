"""Shared fixtures, the seed of each test, and a time limit for the exit of the interpreter."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import pytest
import torch

from nemo_cmim.prepare.prepare import prepare

SECONDS_TO_END = 300
REAL_SMILES = Path(__file__).with_name("real_smiles")


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """Ends an interpreter that does not exit by itself after the last test, with a traceback of all threads and a failure."""
    faulthandler.dump_traceback_later(SECONDS_TO_END, exit=True, file=sys.__stderr__)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seeds torch, so that its random numbers do not depend on earlier tests. pytest-randomly seeds `random` and numpy."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_smiles() -> tuple[str, ...]:
    """SMILES of real molecules: the sample in the folder `real_smiles`."""
    return tuple((REAL_SMILES / "molecules.smi").read_text().split())


@pytest.fixture(scope="session")
def rejected_smiles() -> tuple[str, ...]:
    """Real SMILES that RDKit cannot read."""
    return tuple((REAL_SMILES / "rejected.smi").read_text().split())


@pytest.fixture(scope="session")
def tranche_files(real_smiles: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real molecules in files as ZINC and MegaMolBART's authors write them."""
    folder = tmp_path_factory.mktemp("tranche_files")
    drug_like = [smiles for smiles in real_smiles if len(smiles) < 60]
    lines = [f"{smiles} {number}" for number, smiles in enumerate(drug_like)]
    (folder / "2020.smi").write_text("\n".join(["smiles zinc_id", *lines[:400], ""]))
    padded = [f"{smiles} ZINC{number:012}" for number, smiles in enumerate(drug_like[400:800])]
    (folder / "2018.smi").write_bytes("\r\n".join(["smiles zinc_id", *padded, ""]).encode())
    (folder / "truncated.smi").write_text("\n".join(["smiles zinc_id", *lines[800:850], "CN(CC(=O)Nc1ccc(F)c(F)c1F)C(=O)NCC"]))
    rows = [f"ZINC{number:012},{smiles}" for number, smiles in enumerate(drug_like[850:1050])]
    (folder / "megamolbart.csv").write_text("\n".join(["zinc_id,smiles", *rows, ""]))
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data in the folder next to a checkout. Tests that need them are skipped on a user's machine."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the development data, which are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store of made-up alkanes, alcohols and amines of many lengths."""
    folder = tmp_path_factory.mktemp("data")
    tails = ["", "O", "N", "F", "Cl", "C#N", "C=O", "c1ccccc1", "C(=O)O", "S"]
    lines = [f"{head}{'C' * n}{tail}" for head in ("C", "OC", "NC", "CC(C)") for n in range(1, 12) for tail in tails]
    (folder / "molecules.smi").write_text("\n".join(lines) + "\n")
    prepare([folder / "molecules.smi"], folder / "store", valid_fraction=0.1, test_fraction=0.05, processes=1, progress=False)
    return folder / "store"


@pytest.fixture(scope="session")
def with_properties(data: Path) -> Path:
    """The molecules of `data`, with two properties and a fingerprint of 32 bits."""
    folder = data.with_name("with_properties")
    prepare(
        [data.with_name("molecules.smi")], folder, processes=1, progress=False, valid_fraction=0.1, test_fraction=0.05,
        properties="HeavyAtomCount,TPSA", fingerprint_bits=32,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def made_up_smiles() -> list[str]:
    """360 different molecules, all within the default filters."""
    return [f"{'C' * i}NC(=O)NC(=O){'C' * j}NC(=O){'C' * k}O" for i in range(1, 10) for j in range(1, 6) for k in range(1, 9)]


@pytest.fixture(scope="session")
def prepared(made_up_smiles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store with a tenth of the molecules in validation and a tenth in test."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "made_up.smi").write_text("\n".join(["smiles zinc_id", *(f"{s} {i}" for i, s in enumerate(made_up_smiles)), ""]))
    prepare([folder / "made_up.smi"], folder / "out", valid_fraction=0.1, test_fraction=0.1, processes=1)
    return folder / "out"
