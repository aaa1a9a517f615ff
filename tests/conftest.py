"""Fixtures that several test modules use, and what happens if something keeps the tests from ending."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import pytest

from nemo_cmim.prepare.prepare import prepare

SECONDS_TO_END = 300


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """After the last test the interpreter must end by itself. If something keeps it, its stacks are shown, and the run has failed."""
    faulthandler.dump_traceback_later(SECONDS_TO_END, exit=True, file=sys.__stderr__)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside a checkout; a user's machine does not have it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the development data are not here ({folder})")
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alkanes, alcohols and amines of all lengths: small molecules that are made here, not real data."""
    folder = tmp_path_factory.mktemp("data")
    tails = ["", "O", "N", "F", "Cl", "C#N", "C=O", "c1ccccc1", "C(=O)O", "S"]
    lines = [f"{head}{'C' * n}{tail}" for head in ("C", "OC", "NC", "CC(C)") for n in range(1, 12) for tail in tails]
    (folder / "molecules.smi").write_text("\n".join(lines) + "\n")
    prepare([folder / "molecules.smi"], folder / "store", valid_fraction=0.1, test_fraction=0.05, processes=1, progress=False)
    return folder / "store"


@pytest.fixture(scope="session")
def made_up_smiles() -> list[str]:
    """360 different molecules, all within the default filters."""
    return [f"{'C' * i}NC(=O)NC(=O){'C' * j}NC(=O){'C' * k}O" for i in range(1, 10) for j in range(1, 6) for k in range(1, 9)]


@pytest.fixture(scope="session")
def prepared(made_up_smiles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `prepare` wrote, with a tenth of the molecules for validation and a tenth for test."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "made_up.smi").write_text("\n".join(["smiles zinc_id", *(f"{s} {i}" for i, s in enumerate(made_up_smiles)), ""]))
    prepare([folder / "made_up.smi"], folder / "out", valid_fraction=0.1, test_fraction=0.1, processes=1)
    return folder / "out"
