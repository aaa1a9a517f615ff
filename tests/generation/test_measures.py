"""Validity, uniqueness and novelty of generated SMILES."""

from __future__ import annotations

import math

import pytest

from nemo_cmim.errors import ConfigError
from nemo_cmim.generation import novelty, uniqueness, validity

GENERATED = ["CCO", "OCC", "C(", "", "c1ccccc1", "C1=CC=CC=C1", "CC(C)(C)(C)C"]


def test_measures() -> None:
    assert validity(GENERATED) == 4 / 7, "an empty text is no molecule, and carbon has no five bonds"
    assert uniqueness(GENERATED) == 2 / 4
    assert novelty(GENERATED, ["c1ccccc1", "CCN"]) == 1 / 2
    assert novelty(GENERATED, iter(["CCO", "c1ccccc1"])) == 0.0


def test_nothing_valid_and_nothing_at_all() -> None:
    assert math.isnan(uniqueness(["C("])) and math.isnan(novelty(["C("], []))
    with pytest.raises(ConfigError, match="There are no SMILES to measure"):
        validity([])


def test_one_smiles_in_place_of_a_list_is_an_error() -> None:
    for measure in (validity, uniqueness, lambda smiles: novelty(smiles, ["CCO"])):
        with pytest.raises(ConfigError, match="smiles must be a sequence of SMILES, found the single value 'CCO'"):
            measure("CCO")
        with pytest.raises(ConfigError, match=r"smiles must be a sequence of SMILES, found generator. Pass list\(smiles\)"):
            measure(each for each in GENERATED)
    with pytest.raises(ConfigError, match="known must be a collection of SMILES, found the single value 'CCO'"):
        novelty(GENERATED, "CCO")
