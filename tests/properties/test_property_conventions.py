"""PropertyModel as a scikit-learn estimator."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.metaestimators import available_if

from nemo_cmim import PropertyModel
from tests.estimator_checks import CHECKS
from tests.properties.property_data import LABELS, SMILES, VALUES

FAST = {"features": "morgan128", "head": "ridge", "folds": 2}


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("name", CHECKS)
def test_sklearn_estimator_checks_without_input(name: str, task: str) -> None:
    assert getattr(estimator_checks, name)("PropertyModel", PropertyModel(task)) is None  # a check that fails raises


class NumbersModel(PropertyModel):
    """A `PropertyModel` for the numeric tables of scikit-learn's checks: each row of numbers is written as an alkane's SMILES.

    It shows that fitting, cloning, pickling and the errors follow scikit-learn for the input that the checks can make.
    """

    def __init__(self, task: str = "regression", features: str = "morgan128", head: Any = "neighbours", folds: int = 2) -> None:
        super().__init__(task, features=features, head=head, folds=folds)

    def fit(self, X: Any, y: Any) -> NumbersModel:
        super().fit(written(X), y)
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(written(X))

    @available_if(lambda self: self.task == "classification")
    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(written(X))


def written(X: Any) -> list[str]:
    """A SMILES for each row of numbers; equal rows give equal SMILES."""
    numbers = (np.asarray(X, dtype=np.float64).reshape(len(X), -1) * 1000).astype(np.int64)
    return ["C" + "".join("CNOS"[int(digit)] + "C" for cell in row[:3] for digit in np.base_repr(abs(cell), 4)) for row in numbers]


# Checks that follow scikit-learn's rules for one column of text. Others index tables, or need NaN and infinite numbers in `X`.
INPUT_CHECKS = [
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_estimators_unfitted",
    "check_fit_idempotent",
    "check_fit_check_is_fitted",
    "check_requires_y_none",
]


@pytest.mark.filterwarnings("ignore:.*(contradict each other|are infinite)")
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("name", INPUT_CHECKS)
def test_sklearn_estimator_checks_with_input(name: str, task: str) -> None:
    assert getattr(estimator_checks, name)("NumbersModel", NumbersModel(task)) is None


def test_the_task_is_the_kind_of_estimator() -> None:
    assert is_regressor(PropertyModel()) and not is_classifier(PropertyModel())
    assert is_classifier(PropertyModel("classification")) and not is_regressor(PropertyModel("classification"))
    with pytest.raises(NotFittedError):
        PropertyModel().predict(["C"])


def test_clones_and_pickles() -> None:
    model = PropertyModel(**FAST).fit(SMILES, VALUES)
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "metrics_")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(SMILES), model.predict(SMILES))


@pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series, pa.array, lambda s: pd.DataFrame({"s": s})])
def test_kinds_of_input(make: Any) -> None:
    model = PropertyModel(**FAST).fit(make(SMILES), VALUES)
    np.testing.assert_allclose(model.predict(make(SMILES[:5])), PropertyModel(**FAST).fit(SMILES, VALUES).predict(SMILES[:5]))


def test_searches_scores_and_pipelines() -> None:
    smiles = np.array(SMILES)
    search = GridSearchCV(PropertyModel(**FAST), {"features": ["morgan8", "morgan256"]}, cv=3).fit(smiles, VALUES)
    assert search.best_params_ == {"features": "morgan256"}
    model = PropertyModel("classification", **(FAST | {"head": "logistic"}))
    assert cross_val_score(model, smiles, LABELS, cv=3, scoring="roc_auc").min() > 0.7
    assert make_pipeline(PropertyModel(**FAST)).fit(smiles, VALUES).score(smiles, VALUES) > 0.8


@pytest.mark.slow  # starts processes
def test_processes_give_the_same_result() -> None:
    one = PropertyModel(**FAST).fit(SMILES, VALUES)
    two = PropertyModel(**FAST, n_jobs=2).fit(SMILES, VALUES)
    pd.testing.assert_frame_equal(one.cross_validation_, two.cross_validation_)


def test_seeds() -> None:
    folds = [PropertyModel(**FAST, random_state=seed).fit(SMILES, VALUES).cross_validation_["fold"].tolist() for seed in (0, 0, 1)]
    rows = [PropertyModel(**FAST, random_state=seed).fit(SMILES, VALUES).cross_validation_["row"].tolist() for seed in (0, 0, 1)]
    assert folds[0] == folds[1] and rows[0] == rows[1] != rows[2]
