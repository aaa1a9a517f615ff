"""A model file of a tiny network, and a library with invalid rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cmim.inference.model_file import write_model_file
from tests.inference.conftest import random_model

ROWS = 60
INVALID = {7: "C1CC", 23: "", 41: "[Xe+9]"}


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.nemo"
    write_model_file(path, random_model())
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """60 rows with the columns `id` and `smiles`; those of `INVALID` cannot be embedded."""
    path = tmp_path / "in.csv"
    cells = [INVALID.get(i, f"{'C' * (i % 9 + 1)}{'ON'[i % 2]}") for i in range(ROWS)]
    path.write_text("id,smiles\n" + "".join(f"x{i},{smiles}\n" for i, smiles in enumerate(cells)) + "\n\n")
    return path
