"""A tiny network with random weights, and molecules with made-up values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nemo_cmim.inference import CMIMModel
from tests.inference.conftest import random_model


@pytest.fixture(scope="session")
def model() -> CMIMModel:
    return CMIMModel(random_model(), "cpu")


@pytest.fixture(scope="session")
def sixteen() -> list[str]:
    return [
        "C",
        "CC",
        "CCO",
        "CCCO",
        "c1ccccc1",
        "Cc1ccccc1",
        "CC(=O)O",
        "CCN",
        "CCCl",
        "C1CC1",
        "C1CCC1",
        "CC#N",
        "COC",
        "CS",
        "NCC(=O)O",
        "CF",
    ]


@pytest.fixture(scope="session")
def values() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(5, 3, 16)
