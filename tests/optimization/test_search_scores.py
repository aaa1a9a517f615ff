"""Scores of searches."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import QED, Crippen

from nemo_cmim.errors import ConfigError
from nemo_cmim.molecules import penalised_logp, qed, similarity_to
from nemo_cmim.optimization import Objective

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O"]


def lengths(smiles: list[str]) -> list[int]:
    return [len(text) for text in smiles]


def test_named_scores() -> None:
    np.testing.assert_allclose(Objective("QED")(SMILES), [QED.qed(Chem.MolFromSmiles(text)) for text in SMILES])
    assert np.isnan(qed(["C1CC"])[0]) and np.isnan(qed([""])[0])
    logp, penalised = Crippen.MolLogP(Chem.MolFromSmiles("C1CCCCCCC1")), penalised_logp(["C1CCCCCCC1"])[0]
    assert logp - 10 - 2 < penalised < logp - 0.9 - 2  # a ring of 8, and a synthetic accessibility between 1 and 10
    assert similarity_to("OCC", ["CCO", "c1ccccc1", "C("])[:2].tolist() == [1.0, 0.0]


def test_weighted_sums() -> None:
    mixed = Objective({"QED": 2, lengths: -0.5})
    np.testing.assert_allclose(mixed(SMILES), 2 * qed(SMILES) - 0.5 * np.array(lengths(SMILES)))
    assert mixed.name == "2 x QED + -0.5 x lengths"


def test_molecules_without_a_score_are_nan() -> None:
    def score(smiles: list[str]) -> list[float]:
        if "CCO" in smiles:
            raise KeyError("CCO")
        return [float("inf") if text.startswith("CC") else 1.0 for text in smiles]

    np.testing.assert_array_equal(Objective(score)(SMILES), [np.nan, 1.0, np.nan])
    assert Objective(score)([]).shape == (0,)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("logD", "must be one of QED, plogP, or a function of a list of SMILES, found 'logD'"),
        ({}, "The objective has no parts"),
        ({"QED": float("nan")}, "weight of an objective must be a finite number, found nan"),
        ({"QED": True}, "weight of an objective must be a finite number, found True"),
        (lambda smiles: [1.0], r"must return one number for each SMILES: for 3 SMILES it returned an array of the shape \(1,\)"),
        (lambda smiles: 1.0, r"shape \(\)"),
        (lambda smiles: ["good"] * len(smiles), "must return numbers, found"),
    ],
)
def test_objectives_that_cannot_be_used_raise(objective: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Objective(objective)(SMILES)
