"""Targets: kinds of input, missing values, labels, transforms, and what is wrong with them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.properties.targets import check_varied, contradictions, read_targets
from nemo_cmim.properties.transforms import TargetTransform, check_domain


@pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series, pa.array])
def test_one_column_of_all_kinds(make: Any) -> None:
    targets = read_targets(make([1.0, 2.5, 3.0]), "regression")
    assert targets.one_column and targets.values_NT.tolist() == [[1.0], [2.5], [3.0]]
    assert read_targets(make(["a", "b", "a"]), "classification").values_NT.T.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_tables_keep_their_names(make: Any) -> None:
    targets = read_targets(make({"logS": [1.0, None, 3.0], "logP": [None, 0.5, 1.0]}), "regression")
    assert targets.names == ("logS", "logP") and not targets.one_column
    np.testing.assert_array_equal(targets.values_NT, [[1, np.nan], [np.nan, 0.5], [3, 1]])
    assert read_targets(pd.Series([1, 2], name="x"), "regression").names == ("x",)
    assert read_targets(np.ones((2, 3)), "regression").names == ("target0", "target1", "target2")


def test_missing_values_and_numbers_as_text() -> None:
    values = read_targets(["1.5", "", None, np.nan, "NaN", pd.NA, " -2e3 "], "regression").values_NT[:, 0]
    np.testing.assert_array_equal(values, [1.5, np.nan, np.nan, np.nan, np.nan, np.nan, -2000])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1.2 mg/L", "'1.2 mg/L', not a number"),
        ("1,5", "Write a decimal point"),
        (">10", "'>10', not a number"),
        ("1_000", "not a number"),
        (np.inf, "'inf', not a finite number"),
    ],
)
def test_a_value_that_is_not_a_number_is_named(cell: Any, reason: str) -> None:
    with pytest.raises(DataError, match=f"The target 'logS' at index 1 is .*{reason}"):
        read_targets(pd.DataFrame({"logS": [1.0, cell]}, dtype=object), "regression")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "", None], ["a", "b"]),
        ([True, False, None, None], [False, True]),
        ([1.0, 0.0, np.nan, np.nan], [0, 1]),
        ([3, -1, pd.NA, None], [-1, 3]),
    ],
)
def test_labels(labels: list[Any], classes: list[Any]) -> None:
    targets = read_targets(labels, "classification")
    assert targets.classes[0].tolist() == classes
    np.testing.assert_array_equal(targets.values_NT[:, 0], [1, 0, np.nan, np.nan])


def test_labels_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match=r"at index 1 is 0\.5\. Unknown label type"):
        read_targets([1, 0.5], "classification")
    with pytest.raises(DataError, match=r"different types, for example 1, 'a'"):
        read_targets(["a", 1], "classification")
    with pytest.raises(DataError, match="1,001 classes"):
        read_targets(list(range(1001)), "classification")


@pytest.mark.parametrize(
    "cell", ["#N/A", "#VALUE!", "#REF!", " #DIV/0! ", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#n/a", "#WERT!", "Err:502"]
)
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_errors_of_spreadsheets_are_neither_numbers_nor_classes(cell: str, task: str) -> None:
    with pytest.raises(
        DataError, match=f"at index 1 is {re.escape(repr(cell.strip()))}, an error of a spreadsheet, not a value. Cor"
    ):
        read_targets(["1", cell, "0"], task)
    assert read_targets(["#1", "# high", "none"], "classification").classes[0].tolist() == ["# high", "#1", "none"]


def test_tables_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="Two targets have the name 'x'"):
        read_targets(pd.DataFrame([[1, 2], [2, 3]], columns=["x", "x"]), "regression")
    with pytest.raises(DataError, match="y is empty"):
        read_targets([], "regression")
    with pytest.raises(DataError, match=r"found \[2, 1, 1\]"):
        read_targets(np.ones((2, 1, 1)), "regression")


@pytest.mark.parametrize(
    ("y", "task", "reason"),
    [
        ([2, 2], "regression", "is constant: 2.0"),
        ([None, None], "regression", "has no value"),
        (["a", "a"], "classification", "has only the class 'a'"),
    ],
)
def test_a_target_must_vary(y: list[Any], task: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        check_varied(read_targets(y, task))


def test_contradicting_rows_are_listed() -> None:
    smiles, rows = ["C", "CC", "C", "CCC", "CC"], np.arange(10, 15)
    with pytest.warns(UserWarning, match=r"1 molecules .* C, target 'target', rows \[10, 12\]: a and b"):
        table = contradictions(smiles, read_targets(["a", "b", "b", "a", "b"], "classification"), rows)
    assert table.to_dict("records") == [{"smiles": "C", "target": "target", "rows": [10, 12], "lowest": "a", "highest": "b"}]
    assert contradictions(smiles, read_targets([1, 5, 1.1, 9, 5], "regression"), rows).empty
    with pytest.warns(UserWarning, match="1.0 and 9.0"):
        contradictions(smiles, read_targets([1, 5, 9, 4, 5], "regression"), rows)


@pytest.mark.parametrize("name", [None, "log10", "log1p", "quantile"])
def test_transforms_return(name: str | None) -> None:
    values = np.random.default_rng(0).lognormal(size=(50, 2))
    values[::7, 1] = np.nan
    transform = TargetTransform(name).fit(values)
    changed = transform.forward(values)
    np.testing.assert_allclose(transform.backward(changed), values, rtol=1e-2)
    order = np.argsort(values[:, 0])
    assert (np.diff(changed[order, 0]) > 0).all()
    if name == "quantile":
        assert abs(changed[:, 0].mean()) < 0.05 and abs(changed[:, 0].std() - 1) < 0.05


def test_quantiles_of_equal_values_and_outside_of_the_range() -> None:
    values = np.array([[0.0], [0.0], [0.0], [1.0], [2.0]])
    transform = TargetTransform("quantile").fit(values)
    assert transform.forward(np.array([[0.0]]))[0, 0] == pytest.approx(-0.5244, abs=1e-3)  # the middle of 0.1 to 0.5
    np.testing.assert_allclose(transform.backward(transform.forward(np.array([[-5.0], [9.0]]))), [[0], [2]], atol=1e-3)
    np.testing.assert_array_equal(transform.backward(np.array([[-np.inf], [np.inf]])), [[0], [2]])


def test_logarithms_need_positive_values() -> None:
    with pytest.raises(
        DataError, match=r"The target 'x' at index 7 is 0.0, but target_transform='log10' needs values above 0 \(2 values"
    ):
        check_domain("log10", np.array([[1.0], [0.0], [-1.0]]), ["x"], np.array([5, 7, 8]))
    assert check_domain("log1p", np.array([[0.0], [np.nan]]), ["x"], np.arange(2)) is None
    with pytest.raises(ConfigError, match="target_transform must be one of"):
        TargetTransform("log2")
