"""PropertyModel: fit, cross-validation, predict, and what is wrong with the data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from nemo_cmim import PropertyModel
from nemo_cmim.errors import ConfigError, DataError, InvalidShapeError, InvalidSmilesError
from nemo_cmim.properties.named_heads import CANDIDATES
from tests.properties.property_data import LABELS, SMILES, VALUES

FAST = {"features": "morgan128", "head": "svm", "folds": 3}


def model_of(task: str = "regression", **settings: Any) -> PropertyModel:
    return PropertyModel(task, **(FAST | settings))


def test_regression() -> None:
    model = model_of().fit(SMILES, VALUES)
    assert model.score(SMILES, VALUES) > 0.8
    assert model.predict(SMILES[:2]).shape == (2,)
    metrics = model.metrics_.set_index("metric")["mean"]
    assert list(metrics.index) == ["rmse", "mae", "r2", "spearman"] and metrics["r2"] > 0.5
    table = model.cross_validation_
    assert sorted(table["row"]) == list(range(len(SMILES)))
    np.testing.assert_array_equal(table["measured"], VALUES[table["row"]])
    errors = table["prediction"] - table["measured"]
    np.testing.assert_allclose(table["score"], errors.abs(), atol=1e-12)
    assert metrics["rmse"] == pytest.approx(errors.pow(2).groupby(table["fold"]).mean().pow(0.5).mean())


def test_threads_predict_with_the_same_model() -> None:
    model = model_of(folds=2).fit(SMILES, VALUES)
    parts = [SMILES[i::3] for i in range(3)] * 10
    expected = [model.predict_table(part) for part in parts]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(model.predict_table, parts))
    for one, other in zip(found, expected):
        pd.testing.assert_frame_equal(one, other)


def test_classification_of_text_labels() -> None:
    model = model_of("classification", head="logistic").fit(SMILES, LABELS)
    assert list(model.classes_) == ["high", "low"] and set(model.predict(SMILES)) == {"high", "low"}
    np.testing.assert_allclose(model.predict_proba(SMILES).sum(axis=1), 1)
    assert model.score(SMILES, LABELS) > 0.9
    metrics = model.metrics_.set_index("metric")["mean"]
    assert list(metrics.index) == ["roc_auc", "pr_auc", "mcc", "brier"] and metrics["roc_auc"] > 0.8
    table = model.cross_validation_
    assert set(table.columns) >= {"p_high", "p_low", "measured", "prediction"}
    np.testing.assert_allclose(table["score"], 1 - np.where(table["measured"] == "high", table["p_high"], table["p_low"]))


def test_several_targets_with_missing_values() -> None:
    y = pd.DataFrame({"a": VALUES, "b": np.where(np.arange(60) % 3, -VALUES, np.nan)})
    model = model_of(head="ridge").fit(pd.DataFrame({"smiles": SMILES}), y)
    assert model.target_names_ == ["a", "b"] and model.predict(SMILES).shape == (60, 2)
    assert list(model.metrics_["target"].unique()) == ["a", "b"]
    assert (model.cross_validation_["target"] == "b").sum() == 40
    alone = model_of(head="ridge").fit(SMILES, VALUES).predict(SMILES)
    np.testing.assert_allclose(model.predict(SMILES)[:, 0], alone)
    labels = pd.DataFrame({"a": LABELS, "b": np.where(np.arange(60) % 3, VALUES > 1, None)})
    model = model_of("classification", head="logistic").fit(SMILES, labels)
    assert [each.shape for each in model.predict_proba(SMILES)] == [(60, 2), (60, 2)]
    assert model.predict(SMILES).shape == (60, 2) and model.score(SMILES, labels) > 0.8


@pytest.mark.parametrize("head", ["ridge", "svm"])
def test_predictions_follow_the_unit_of_the_target(head: str) -> None:
    one = model_of(head=head).fit(SMILES, VALUES).predict(SMILES)
    other = model_of(head=head).fit(SMILES, 1000 * VALUES + 5).predict(SMILES)
    np.testing.assert_allclose(other, 1000 * one + 5, rtol=1e-6)


def test_transformed_targets_come_back_in_their_unit() -> None:
    y = 10.0**VALUES
    model = model_of(target_transform="log10").fit(SMILES, y)
    np.testing.assert_allclose(np.log10(model.predict(SMILES)), model_of().fit(SMILES, VALUES).predict(SMILES))
    table = model.predict_table(["CCOCCO"])
    low, middle, high = (table[f"target{end}"][0] for end in ("_lower", "", "_upper"))
    assert 0 < low < middle < high and middle / low == pytest.approx(high / middle)


def test_everything_is_learnt_again_in_each_fold() -> None:
    """The predictions of a fold are those of a model that was fitted on its training rows alone."""
    model = model_of(features="morgan128", target_transform="quantile").fit(SMILES, VALUES)
    table = model.cross_validation_.query("fold == 1")
    train = sorted(set(range(60)) - set(table["row"]))
    alone = model_of(target_transform="quantile").fit([SMILES[r] for r in train], VALUES[train])
    np.testing.assert_allclose(alone.predict([SMILES[r] for r in table["row"]]), table["prediction"])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_auto_chooses_in_each_fold(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CANDIDATES, task, [("neighbours", {}), ("svm", {})])
    model = model_of(task, head="auto").fit(SMILES, VALUES if task == "regression" else LABELS)
    tried = model.choice_
    of_folds = set(tried.query("chosen and fold != 'all rows'")["head"])
    assert list(tried["fold"]) == [fold for fold in ("0", "1", "2") for _ in range(2)] + ["all rows"] * len(of_folds)
    assert tried.groupby("fold")["chosen"].sum().tolist() == [1] * 4
    best = tried[tried["fold"] == "all rows"].sort_values("score").iloc[0]
    assert model.chosen_ == {"head": best["head"], "settings": {}} and best["head"] in of_folds


def test_heads_that_are_not_tried_for_lack_of_time_are_named() -> None:
    with pytest.warns(UserWarning, match=r"did not try svm, neighbours, .* the time limit of 1e-06 s was over"):
        model = model_of(head="auto", time_limit=1e-6).fit(SMILES, VALUES)
    assert model.chosen_["head"] == "ridge" and set(model.choice_.query("chosen")["head"]) == {"ridge"}


def test_auto_with_few_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CANDIDATES, "regression", [("ridge", {}), ("svm", {})])
    years = np.repeat(np.arange(2000, 2006), 10)
    model = model_of(head="auto", split="time", folds=5, coverage=0.5).fit(SMILES, VALUES, groups=years)
    assert sorted(model.cross_validation_["fold"].unique()) == [0, 1, 2, 3, 4]
    model_of(head="auto", folds=3, coverage=0.5).fit(SMILES[:3], VALUES[:3])  # two training molecules in each fold
    with pytest.raises(DataError, match="1 training rows have only one molecule"):
        model_of(head="auto", folds=2).fit(SMILES[:2], VALUES[:2])


def test_a_target_without_values_in_a_fold_is_not_tested_there() -> None:
    y = pd.DataFrame({"a": VALUES, "b": np.where(np.arange(60) < 30, np.nan, -VALUES)})
    with pytest.warns(UserWarning, match="The target 'b' is not tested in fold 0: it has no value in the training rows"):
        model = model_of(head="ridge", split="time", folds=2).fit(SMILES, y, groups=np.arange(60) // 20)
    table = model.cross_validation_
    assert len(table.query("target == 'a'")) == 40 and set(table.query("target == 'b'")["fold"]) == {1}
    assert not table["prediction"].isna().any() and model.metrics_.set_index(["target", "metric"])["folds"]["b", "rmse"] == 1


def test_rows_without_prediction_beside_labels() -> None:
    labels = (np.median(VALUES) < VALUES).astype(int)
    model = model_of("classification", head="logistic", on_invalid="nan").fit(SMILES, labels)
    table = model.predict_table([SMILES[0], "C1CC"])
    assert isinstance(table[model.target_names_[0]][0], int) and pd.isna(table[model.target_names_[0]][1])
    with pytest.warns(UserWarning, match="1 of 61 rows cannot be used"):
        assert model.score([*SMILES, "C1CC"], [*labels, 1]) == model.score(SMILES, labels)
    with pytest.raises(DataError, match=r"the class 'a; b'. '; ' separates classes of a set: rename the class"):
        model_of("classification", head="logistic").fit(SMILES, np.where(labels, "a; b", "c"))


def test_rows_of_one_molecule_are_in_one_fold() -> None:
    other = [s[::-1] if set(s) <= set("CNOF") else s for s in SMILES]  # the same molecules, written from the other end
    model = model_of().fit(SMILES + other, np.concatenate([VALUES, VALUES]))
    folds = model.cross_validation_.set_index("row")["fold"]
    assert [folds[row] for row in range(60)] == [folds[row + 60] for row in range(60)]
    assert model.card_["rows"] == 120 and model.card_["molecules"] == 60


def test_contradicting_rows_are_reported() -> None:
    with pytest.warns(UserWarning, match=r"1 molecules have rows that contradict .* rows \[1, 60\]: -?\d.* and 99"):
        model = model_of().fit([*SMILES, "OC"], [*VALUES, 99.0])
    assert model.contradictions_["rows"].tolist() == [[1, 60]]


@pytest.mark.parametrize("split", ["scaffold", "time"])
def test_splits_of_the_cross_validation(split: str) -> None:
    groups = np.arange(60) if split == "time" else None
    table = model_of(split=split, head="ridge").fit(SMILES, VALUES, groups=groups).cross_validation_
    assert table["row"].min() == (15 if split == "time" else 0) and table["fold"].nunique() == 3


def test_rows_that_cannot_be_used() -> None:
    smiles, y = ["C1C", *SMILES], [1.0, np.nan, *VALUES[1:]]
    with pytest.raises(InvalidSmilesError, match=r"2 of 61 rows cannot be used. The first, at index 0: .*unclosed ring"):
        model_of().fit(smiles, y)
    with pytest.warns(UserWarning, match="2 of 61 rows"):
        model = model_of(on_invalid="nan").fit(smiles, y)
    assert model.left_out_["row"].tolist() == [0, 1] and model.left_out_["reason"][1] == "the target is missing (NaN)"
    assert model.cross_validation_["row"].min() == 2
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        assert np.isnan(model.predict(["C", "x"])).tolist() == [False, True]
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        labels = model_of("classification", on_invalid="nan").fit(SMILES, LABELS).predict(["x", "C"])
    assert labels.tolist() == [None, "low"]


def test_standardisation_is_part_of_the_model() -> None:
    model = model_of(standardise="desalt").fit([f"{s}.Cl" for s in SMILES], VALUES)
    np.testing.assert_allclose(model.predict(SMILES), model_of().fit(SMILES, VALUES).predict(SMILES))


def test_a_table_of_predictions() -> None:
    model = model_of().fit(SMILES, pd.Series(VALUES, name="logS"))
    table = model.predict_table(["OCC", "C1C", SMILES[7], None])
    assert list(table.columns) == [
        "smiles", "logS", "logS_lower", "logS_upper", "nearest_training", "tanimoto", "embedding_distance", "reason",
    ]  # fmt: skip
    assert table["smiles"].tolist() == ["OCC", "C1C", SMILES[7], "None"]
    assert table["reason"].isna().tolist() == [True, False, True, False] and "missing value" in table["reason"][3]
    assert table["tanimoto"].isna().tolist() == [False, True, False, True] and table["nearest_training"][0] == "CCO"
    width = (table["logS_upper"] - table["logS_lower"])[0] / 2
    residuals = np.sort((model.cross_validation_["prediction"] - model.cross_validation_["measured"]).abs())
    assert width == pytest.approx(residuals[int(np.ceil(61 * 0.9)) - 1])
    np.testing.assert_allclose(table["logS"][[0, 2]], model.predict(["CCO", SMILES[7]]))


def test_a_table_of_classes_has_sets() -> None:
    labels = np.array(["a", "b", "c"])[np.digitize(VALUES, [1, 3])]
    table = model_of("classification", coverage=0.95).fit(SMILES, labels).predict_table(SMILES)
    assert {"target", "target_p_a", "target_p_b", "target_p_c", "target_set"} < set(table.columns)
    assert np.mean([label in text.split("; ") for label, text in zip(labels, table["target_set"])]) > 0.9
    assert table["target_set"].str.contains("; ").any()


def test_intervals_of_few_rows_are_infinite() -> None:
    with pytest.warns(UserWarning, match="has 8 tested rows, but intervals with a coverage of 0.9 need 9"):
        model = model_of(folds=2).fit(SMILES[:8], VALUES[:8])
    assert model.predict_table(["C"])["target_upper"][0] == np.inf


@pytest.mark.parametrize(
    ("settings", "y", "error", "reason"),
    [
        ({"task": "ranking"}, VALUES, ConfigError, "task must be one of regression, classification"),
        ({"head": "forest"}, VALUES, ConfigError, "head='forest' is unknown for regression"),
        ({"split": "cluster"}, VALUES, ConfigError, "split must be one of random, scaffold, time"),
        ({"folds": 1}, VALUES, ConfigError, "folds must be at least 2"),
        ({"folds": 61}, VALUES, DataError, "60 distinct molecules are too few for 61 folds"),
        ({"coverage": 1.0}, VALUES, ConfigError, "coverage must be below 1"),
        ({"coverage": 90}, VALUES, ConfigError, "coverage must be a number above 0 and at most 1"),
        (
            {"head": "forest", "features": "not read"},
            "not read",
            ConfigError,
            "head='forest' is unknown for regression. Choose ridge",
        ),
        ({"on_invalid": "drop"}, VALUES, ConfigError, "on_invalid must be one of raise, nan"),
        ({"target_transform": "log10"}, VALUES, DataError, "index 0 is 0.5|needs values above 0"),
        ({"task": "classification", "target_transform": "log10"}, LABELS, ConfigError, "needs task='regression'"),
        ({}, VALUES[:5], InvalidShapeError, "X has 60 rows and y has 5"),
        ({}, VALUES * 0, DataError, "is constant: 0.0"),
        ({}, ["1 mg"] * 60, DataError, "index 0 is '1 mg', not a number"),
        ({}, pd.DataFrame({"smiles": VALUES}), DataError, "two columns 'smiles'"),
        ({"task": "classification"}, ["a"] * 60, DataError, "has only the class 'a'"),
        ({"task": "classification", "head": Ridge()}, LABELS, ConfigError, "has no predict_proba"),
    ],
)
def test_errors(settings: dict[str, Any], y: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        PropertyModel(**(FAST | settings)).fit(SMILES, y)


def test_errors_of_predict() -> None:
    model = model_of().fit(SMILES, VALUES)
    with pytest.raises(InvalidSmilesError, match="sequence is empty"):
        model.predict([])
    with pytest.raises(InvalidSmilesError, match="1 of 1 rows cannot be used"):
        model.predict(["ethanol"])
    assert not hasattr(model, "predict_proba")
