from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nemo_cmim.config import from_mapping
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.prepare.settings import Settings
from nemo_cmim.prepare.splits import Cuts, Shares

HASHES = np.sort(np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64))


def sizes(shares: Shares) -> dict[str, int]:
    cuts = shares.cuts(len(HASHES), lambda place: int(HASHES[place]))
    return {split: part.stop - part.start for split, part in cuts.ranges(HASHES).items()}


def test_a_fraction_is_expected_and_a_number_is_exact() -> None:
    found = sizes(Shares(valid=0.1, test=0.2))
    assert sum(found.values()) == len(HASHES)
    assert found["valid"] == pytest.approx(2000, rel=0.1) and found["test"] == pytest.approx(4000, rel=0.1)
    assert sizes(Shares(valid=123, test=7)) == {"train": 20_000 - 130, "valid": 123, "test": 7}
    assert sizes(Shares(valid=123, test=0)) == {"train": 20_000 - 123, "valid": 123, "test": 0}
    assert sizes(Shares(valid=0, test=0)) == {"train": 20_000, "valid": 0, "test": 0}


def test_changing_one_share_moves_no_molecule_of_the_other() -> None:
    few, more = (Shares(valid=valid, test=0.2).cuts().ranges(HASHES) for valid in (0.1, 0.3))
    assert few["test"] == more["test"]
    assert more["valid"].start < few["valid"].start and more["valid"].stop == few["valid"].stop


def test_the_ends_of_the_hashes() -> None:
    edges = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert Cuts(1, 2**64).ranges(edges) == {"train": slice(1, 4), "valid": slice(4, 4), "test": slice(0, 1)}
    assert Cuts(0, 2**64 - 1).ranges(edges) == {"train": slice(0, 3), "valid": slice(3, 4), "test": slice(0, 0)}


@pytest.mark.parametrize(("valid", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (math.nan, 0.1), (1.5, 0.1), (0.1, math.inf)])
def test_impossible_shares(valid: float, test: float) -> None:
    with pytest.raises(ConfigError, match="split"):
        Shares(valid=valid, test=test)


def test_numbers_that_there_are_not() -> None:
    with pytest.raises(DataError, match="20,000 molecules are wanted for validation and test, but only 20,000 are left"):
        sizes(Shares(valid=10_000, test=10_000))
    with pytest.raises(DataError, match=r"validation \(19000\) and test \(0\.2\) overlap"):
        sizes(Shares(valid=19_000, test=0.2))


@pytest.mark.parametrize(
    "setting",
    [
        {"valid_fraction": 1.0},
        {"test_molecules": -1},
        {"limit": 0},
        {"shard_molecules": -1},
        {"piece_lines": 1.5},
        {"max_tokens": "5"},
        {"desalt": 1},
        {"max_token": 5},
        {"limit": True},
        {"valid_fraction": 0.1, "valid_molecules": 5},
    ],
)
def test_impossible_settings(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        from_mapping(Settings, setting, "prepare")
