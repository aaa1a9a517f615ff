from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.mappings import from_mapping
from nemo_cmim.prepare.settings import Settings, SplitSizes
from nemo_cmim.prepare.splits import SplitBounds, split_bounds

HASHES = np.sort(np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64))


def molecules_of(sizes: SplitSizes) -> dict[str, int]:
    bounds = split_bounds(sizes, len(HASHES), lambda index: int(HASHES[index]))
    return {split: place.stop - place.start for split, place in bounds.slices(HASHES).items()}


def test_a_fraction_is_expected_and_a_number_is_exact() -> None:
    found = molecules_of(SplitSizes(valid=0.1, test=0.2))
    assert sum(found.values()) == len(HASHES)
    assert found["valid"] == pytest.approx(2000, rel=0.1) and found["test"] == pytest.approx(4000, rel=0.1)
    assert molecules_of(SplitSizes(valid=123, test=7)) == {"train": 20_000 - 130, "valid": 123, "test": 7}
    assert molecules_of(SplitSizes(valid=123, test=0)) == {"train": 20_000 - 123, "valid": 123, "test": 0}
    assert molecules_of(SplitSizes(valid=0, test=0)) == {"train": 20_000, "valid": 0, "test": 0}


def test_changing_the_size_of_one_split_moves_no_molecule_of_the_other() -> None:
    few, more = (split_bounds(SplitSizes(valid=valid, test=0.2)).slices(HASHES) for valid in (0.1, 0.3))
    assert few["test"] == more["test"]
    assert more["valid"].start < few["valid"].start and more["valid"].stop == few["valid"].stop


def test_the_ends_of_the_hashes() -> None:
    edges = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert SplitBounds(1, 2**64).slices(edges) == {"train": slice(1, 4), "valid": slice(4, 4), "test": slice(0, 1)}
    assert SplitBounds(0, 2**64 - 1).slices(edges) == {"train": slice(0, 3), "valid": slice(3, 4), "test": slice(0, 0)}


@pytest.mark.parametrize(("valid", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (math.nan, 0.1), (1.5, 0.1), (0.1, math.inf)])
def test_impossible_split_sizes(valid: float, test: float) -> None:
    with pytest.raises(ConfigError, match="split"):
        SplitSizes(valid=valid, test=test)


def test_more_molecules_than_there_are() -> None:
    with pytest.raises(DataError, match="20,000 molecules are requested for validation and test, but only 20,000 are left"):
        molecules_of(SplitSizes(valid=10_000, test=10_000))
    with pytest.raises(DataError, match=r"validation split \(19000\) and the test split \(0\.2\) overlap"):
        molecules_of(SplitSizes(valid=19_000, test=0.2))


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
