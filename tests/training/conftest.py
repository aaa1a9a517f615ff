"""Data of the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cmim.prepare.prepare import prepare


@pytest.fixture(scope="session")
def with_properties(data: Path) -> Path:
    """The molecules of `data`, with two properties and a fingerprint of 32 bits."""
    folder = data.with_name("with_properties")
    prepare(
        [data.with_name("molecules.smi")], folder, processes=1, progress=False, valid_fraction=0.1, test_fraction=0.05,
        properties="HeavyAtomCount,TPSA", fingerprint_bits=32,
    )  # fmt: skip
    return folder
