"""Scores of searches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
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
    objective = Objective({score: 1, "QED": 1})
    objective(SMILES)
    assert objective.errors == {"CCO": "score(['CCO']) raised KeyError('CCO')"}
    assert np.isfinite(objective(SMILES[1:2])).all() and not objective.errors


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1.5, 2, 3], requires_grad=True),
        torch.tensor([1.5, 2, 3], dtype=torch.bfloat16),
        [torch.tensor(1.5, requires_grad=True), torch.tensor([2.0]), 3],
        np.array([1.5, 2, 3], np.float32),
        [np.float32(1.5), np.int64(2), np.array(3)],
        (1.5, 2, 3),
        pd.Series([1.5, 2, 3], index=[7, 8, 9]),
        pd.array([1.5, 2, 3], dtype="Float64"),
    ],
    ids=lambda values: type(values).__name__,
)
def test_all_kinds_of_numbers_are_scores(values: object) -> None:
    assert Objective(lambda smiles: values)(SMILES).tolist() == [1.5, 2, 3]


def test_missing_numbers_are_no_score() -> None:
    for values in ([1, None, 3], pd.array([1, pd.NA, 3], dtype="Int64")):
        np.testing.assert_array_equal(Objective(lambda smiles, values=values: values)(SMILES), [1, np.nan, 3])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("logD", "must be one of QED, plogP, or a function of a list of SMILES, found 'logD'"),
        ({}, "The objective has no parts"),
        ({"QED": float("nan")}, "weight of an objective must be a finite number, found nan"),
        ({"QED": True}, "weight of an objective must be a finite number, found True"),
        (lambda smiles: [1.0], r"must return one number for each SMILES: for 3 SMILES it returned an array of the shape \(1,\)"),
        (lambda smiles: 1.0, r"shape \(\)"),
        (lambda smiles: torch.zeros(3, 1), r"shape \(3, 1\)"),
        (lambda smiles: [torch.zeros(2)] * 3, "must return numbers, found"),
        (lambda smiles: ["good"] * len(smiles), "must return numbers, found"),
    ],
)
def test_objectives_that_cannot_be_used_raise(objective: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Objective(objective)(SMILES)
