"""Heads by name, and features by name."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import Lasso

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.inference import load
from nemo_cmim.molecules import descriptors, morgan_fingerprints
from nemo_cmim.properties import FeaturePredictor, FeatureSet
from nemo_cmim.properties.choice import choose
from nemo_cmim.properties.named_heads import HEADS, MAX_GP_ROWS, named_head
from nemo_cmim.properties.predictor_file import TRUSTED
from nemo_cmim.properties.splits import random_folds
from tests.properties.property_data import LABELS, SMILES, VALUES
from tests.shipped_names import WITHOUT_PROPERTIES

CODES = (LABELS == "high").astype(np.float64)
QUICK = {"mlp": {"regression": {"steps": 100}, "classification": {"max_iter": 20}}}


@pytest.mark.parametrize(("task", "head"), [(task, head) for task, heads in HEADS.items() for head in heads])
def test_every_head_learns_and_can_be_saved(task: str, head: str) -> None:
    settings = QUICK.get(head, {}).get(task)
    y = VALUES if task == "regression" else CODES
    features = FeatureSet("morgan256+rdkit" if head == "boosting" else "morgan256")
    predictor = FeaturePredictor(features, head, task, [2], settings).fit(SMILES, y[:, None])
    found = predictor.predict(SMILES)
    if task == "regression":
        assert found.shape == (60, 1) and np.corrcoef(found[:, 0], VALUES)[0, 1] > 0.8
    else:
        np.testing.assert_allclose(found[0].sum(axis=1), 1)
        assert np.mean(found[0].argmax(axis=1) == CODES) > 0.8
    data = skops.io.dumps(predictor.heads_)
    predictor.heads_ = skops.io.loads(data, trusted=list(TRUSTED))
    np.testing.assert_array_equal(predictor.predict(SMILES)[0], found[0])


def test_targets_are_learnt_where_they_are_known() -> None:
    both = np.column_stack([VALUES, np.where(np.arange(60) < 40, -VALUES, np.nan)])
    features = FeatureSet("morgan128")
    found = FeaturePredictor(features, "ridge").fit(SMILES, both).predict(SMILES)
    alone = FeaturePredictor(features, "ridge").fit(SMILES[:40], -VALUES[:40, None]).predict(SMILES)
    np.testing.assert_allclose(found[:, 1], alone[:, 0])
    without = FeaturePredictor(features, "ridge").fit(SMILES[40:], both[40:]).predict(SMILES)
    assert np.isnan(without[:, 1]).all() and np.isfinite(without[:, 0]).all()


def test_classes_without_training_rows_have_the_probability_0() -> None:
    found = FeaturePredictor(FeatureSet("morgan128"), "logistic", "classification", [4]).fit(SMILES, 2 * CODES[:, None])
    probabilities = found.predict(SMILES)[0]
    assert probabilities.shape == (60, 4) and (probabilities[:, [1, 3]] == 0).all() and (probabilities[:, [0, 2]] > 0).all()
    one = FeaturePredictor(FeatureSet("morgan128"), "svm", "classification", [2]).fit(SMILES, np.ones((60, 1)))
    assert one.predict(["C"])[0].tolist() == [[0, 1]]


def test_heads_that_cannot_be_used() -> None:
    x, y = np.zeros((MAX_GP_ROWS + 1, 2)), np.arange(MAX_GP_ROWS + 1.0)
    with pytest.raises(ConfigError, match=r"at most 2,000 training rows, .* found 2,001"):
        named_head("gp", "regression", x, y)
    with pytest.raises(ConfigError, match="'logistic' is unknown for regression"):
        named_head("logistic", "regression", x, y)
    with pytest.raises(DataError, match="at least 2 training rows of each class"):
        named_head("svm", "classification", x[:4], np.array([0, 0, 0, 1]))


def test_any_estimator_is_a_head() -> None:
    head = Lasso(alpha=0.01)
    found = FeaturePredictor(FeatureSet("morgan128"), head).fit(SMILES, VALUES[:, None]).predict(SMILES)
    assert np.corrcoef(found[:, 0], VALUES)[0, 1] > 0.8 and not hasattr(head, "coef_")


def test_features_side_by_side() -> None:
    model, smiles = load(WITHOUT_PROPERTIES), ["CCO", "c1ccccc1"]
    features = FeatureSet("informative[1,2] + mean+morgan64 + rdkit", WITHOUT_PROPERTIES)
    parts = [model.embed(smiles, layers=(1, 2)), model.embed(smiles, "mean"), morgan_fingerprints(smiles, 64), descriptors(smiles)]
    np.testing.assert_allclose(features(smiles), np.concatenate(parts, axis=1), rtol=1e-4, atol=1e-5)
    assert [width for _, width in features.columns()] == [part.shape[1] for part in parts]
    assert features.fingerprints == {"informative[1,2]": model.fingerprint(layers=(1, 2)), "mean": model.fingerprint("mean")}
    assert features.embedding_columns() == slice(0, parts[0].shape[1])
    assert FeatureSet("morgan64").embedding_columns() is None
    with features.computed(["CCO", "CCO", "C"]):
        np.testing.assert_array_equal(features(["C", "CCO"])[1], features(["CCO"])[0])


def test_molecules_that_are_too_large_for_descriptors() -> None:
    reason = FeatureSet("morgan64+rdkit").invalid_reason
    assert reason("C" * 200) is None and reason("CC" + "[13CH2]" * 190 + "CC") is None
    assert reason("C" * 3000) == f"the SMILES ('{'C' * 76}...) has 3,000 heavy atoms; descriptors are computed for at most 200"
    assert FeatureSet("morgan64").invalid_reason("C" * 3000) is None
    both = FeatureSet("informative+rdkit", WITHOUT_PROPERTIES).invalid_reason
    assert both("CCO") is None and "tokens" in (both("C" * 3000) or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("informativ", "'informativ' is unknown"),
        ("mean[1]", "only informative has layers"),
        ("rdkit+rdkit", "given twice"),
        ("", "features must be text"),
        (None, "found None"),
    ],
)
def test_unknown_features(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        FeatureSet(text)


class Made:
    """A predictor whose error is the number in its settings."""

    def __init__(self, head: str, settings: dict[str, float]) -> None:
        self.error = settings["error"]

    def fit(self, smiles: list[str], targets_NT: np.ndarray) -> Made:
        if self.error < 0:
            raise ConfigError("too many rows")
        return self

    def predict(self, smiles: list[str]) -> np.ndarray:
        return np.array([[VALUES[SMILES.index(one)] + self.error] for one in smiles])


def test_the_best_candidate_is_chosen_within_the_time() -> None:
    candidates = [("a", {"error": 3.0}), ("b", {"error": -1.0}), ("c", {"error": 1.0}), ("d", {"error": 2.0})]
    splits = random_folds(SMILES, 3)
    choice = choose(Made, candidates, "regression", SMILES, VALUES[:, None], splits, 1e9)
    assert (choice.head, choice.settings) == ("c", {"error": 1.0})
    assert [row["note"] for row in choice.tried] == ["", "too many rows", "", ""]
    assert choice.tried[2]["score"] == pytest.approx(1 / VALUES.std())
    choice = choose(Made, candidates, "regression", SMILES, VALUES[:, None], splits, 0.0)
    assert choice.head == "a" and [row["note"] for row in choice.tried[2:]] == ["out of time"] * 2
    with pytest.raises(DataError, match=r"No head could be fitted\. The first, b: too many rows"):
        choose(Made, candidates[1:2], "regression", SMILES, VALUES[:, None], splits, 1.0)
