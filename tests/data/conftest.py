"""A small prepared folder for the tests of the data package. Its molecules are made up, so no data are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cmim.data.prepare import prepare


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
