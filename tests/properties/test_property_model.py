"""PropertyModel: fit, cross-validation, predict."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_cmim import PropertyModel
from tests.properties.property_data import LABELS, SMILES, VALUES

FAST = {"features": "morgan128", "head": "svm", "folds": 3}


def test_regression() -> None:
    model = PropertyModel(**FAST).fit(SMILES, VALUES)
    assert model.score(SMILES, VALUES) > 0.8
    assert model.predict(SMILES[:2]).shape == (2,)
    metrics = model.metrics_.set_index("metric")["mean"]
    assert list(metrics.index) == ["rmse", "mae", "r2", "spearman"] and metrics["r2"] > 0.5
    table = model.cross_validation_
    assert sorted(table["row"]) == list(range(len(SMILES)))
    np.testing.assert_array_equal(table["measured"], VALUES[table["row"]])


def test_classification_of_text_labels() -> None:
    model = PropertyModel("classification", **(FAST | {"head": "logistic"})).fit(SMILES, LABELS)
    assert list(model.classes_) == ["high", "low"] and set(model.predict(SMILES)) == {"high", "low"}
    np.testing.assert_allclose(model.predict_proba(SMILES).sum(axis=1), 1)
    assert model.score(SMILES, LABELS) > 0.9
    metrics = model.metrics_.set_index("metric")["mean"]
    assert list(metrics.index) == ["roc_auc", "pr_auc", "mcc", "brier"] and metrics["roc_auc"] > 0.8


@pytest.mark.parametrize("head", ["ridge", "svm"])
def test_predictions_follow_the_unit_of_the_target(head: str) -> None:
    one = PropertyModel(**(FAST | {"head": head})).fit(SMILES, VALUES).predict(SMILES)
    other = PropertyModel(**(FAST | {"head": head})).fit(SMILES, 1000 * VALUES + 5).predict(SMILES)
    np.testing.assert_allclose(other, 1000 * one + 5, rtol=1e-6)
