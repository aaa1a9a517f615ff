"""Significant digits in tables: numbers of any magnitude, a mean with the same exponent and decimals as its spread."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor

from nemo_cmim.downstream import RegressionData, describe, evaluate, markdown, mean_and_sd, named_heads, parity_plot
from nemo_cmim.downstream.numbers import Notation

SMILES = ["C" * n + "O" for n in range(1, 25)]


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (2.2123, 0.0041, "2.212 ± 0.004"),
        (0.9765, 0.0151, "0.977 ± 0.015"),
        (123.4561, 1.2, "123.456 ± 1.200"),
        (0.04231, 0.0031, "0.0423 ± 0.0031"),
        (0.0042, 0.0001, "0.00420 ± 0.00010"),
        (12345.67, 3.21, "12345.7 ± 3.2"),
        (1.234e-9, 4e-12, "(1.234 ± 0.004)e-09"),
        (1.234e32, 5.6e30, "(1.234 ± 0.056)e+32"),
        (-1.5e-7, 2e-9, "(-1.500 ± 0.020)e-07"),
        (999_999.6, 10_000.0, "(1.000 ± 0.010)e+06"),
        (5e-324, 0.0, "(4.941 ± 0.000)e-324"),
        (1.5e308, 1e307, "(1.500 ± 0.100)e+308"),
        (0.0, 0.0, "0.000 ± 0.000"),
        (math.nan, math.nan, "nan ± nan"),
        (math.inf, 1.0, "inf ± 1.000"),
    ],
)
def test_a_mean_and_its_spread(mean: float, spread: float, expected: str) -> None:
    assert Notation.of([mean]).with_spread(mean, spread) == expected


@pytest.mark.parametrize("exponent", range(-30, 31))
@pytest.mark.parametrize("mantissa", [1.0, 3.14159, 9.9994, 9.99996, -2.5])
def test_a_number_is_read_back_to_three_digits_from_a_short_text(mantissa: float, exponent: int) -> None:
    value = mantissa * 10.0**exponent
    text = Notation.of([value]).text(value)
    assert float(text) == pytest.approx(value, rel=5e-3) and len(text) <= 11


def test_numbers_of_a_table_have_one_notation_unless_they_are_far_apart() -> None:
    assert Notation.of([2.2, 0.04]) == Notation(0, 4)
    assert Notation.of([3e-9, 4e-10, 0.0, math.inf]) == Notation(-9, 3)
    common = Notation.of([2.2, 1e-12])
    assert common.text(2.2) == "2.20000" and not common.shows(1e-12) and common.shows(0.0)


def test_two_equal_values_of_any_size_have_a_finite_spread() -> None:
    assert mean_and_sd(pd.Series([1e200, 3e200])) == "(2.000 ± 1.414)e+200"
    assert mean_and_sd(pd.Series([3e-9])) == "3.000e-09"
    assert mean_and_sd(pd.Series([0.25, 0.75]), "{:.1%}") == "50.0% ± 35.4%"
    assert mean_and_sd(pd.Series(dtype=float)) == ""


@pytest.mark.parametrize("scale", [1e-200, 1e-9, -1e-9, 0.01, 1e32, -1e32, 1e200])
def test_errors_scale_with_the_targets(scale: float, tmp_path) -> None:
    noise = np.random.default_rng(0).normal(size=len(SMILES))
    features = {"length": lambda smiles: np.array([[len(one)] for one in smiles], float)}
    results = {}
    for size in (1.0, scale):
        data = RegressionData(name="chains", smiles=SMILES, targets=size * (np.arange(24) + noise))
        heads = {**named_heads(["mlp"], 50, "cpu"), "mean": DummyRegressor()}
        results[size] = evaluate(data, features, heads, folds=3, seeds=(0, 1), progress=False)
    found, expected = results[scale], results[1.0]
    for metric, factor in (("rmse", abs(scale)), ("mae", abs(scale)), ("r2", 1.0)):
        of_mean = found.runs["head"] == "mean"
        np.testing.assert_allclose(found.runs[metric][of_mean], expected.runs[metric][of_mean] * factor, rtol=1e-9)
    assert found.baseline_rmse == pytest.approx(expected.baseline_rmse * abs(scale))
    table = markdown(found).splitlines()[2]
    for cell in table.split("|")[2:4]:
        number, _, exponent = cell.strip().replace("(", "").partition(")")
        mean = float(number.split(" ± ")[0] + exponent)
        assert 0.1 * abs(scale) < mean < 100 * abs(scale) and len(cell) < 40
    assert len(describe(found)) < 400 and " 0.000" not in describe(found)
    parity_plot(found, tmp_path / "parity.png")
    assert (tmp_path / "parity.png").stat().st_size > 1000
