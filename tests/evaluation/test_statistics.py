"""Paired tests of differences, and their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from nemo_cmim.evaluation.statistics import Contrast, holm, paired_tests
from nemo_cmim.evaluation.tables import differences_table, rmse_table


def runs_of(errors: dict[str, list[list[float]]]) -> pd.DataFrame:
    """For each set of features the errors of the seeds, for each head."""
    return pd.DataFrame(
        [
            {"data": "D", "features": name, "head": head, "seed": seed, "rmse": value}
            for name, of_heads in errors.items()
            for head, values in zip(("svm", "mlp"), of_heads)
            for seed, value in enumerate(values)
        ]
    ).sample(frac=1, random_state=0)


def test_differences_are_paired_by_seed() -> None:
    a, b = [[1.0, 2.0, 3.0, 5.0], [1.0, 1.1, 0.9, 1.0]], [[1.5, 2.4, 3.6, 5.7], [1.0, 1.0, 1.0, 1.0]]
    found = paired_tests(runs_of({"a": a, "b": b}), [Contrast("a", "b")]).set_index("head")
    expected, spread = [], []
    for first, second in zip(a, b):
        difference = np.subtract(first, second)
        spread.append(difference.std(ddof=1))
        statistic = difference.mean() / (difference.std(ddof=1) / np.sqrt(4))
        expected.append(2 * student.sf(abs(statistic), df=3))
    assert found.loc["svm", "difference"] == pytest.approx(-0.55) and found.loc["mlp", "difference"] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.loc[["svm", "mlp"], "p"], expected)
    np.testing.assert_allclose(found.loc[["svm", "mlp"], "sd"], spread)
    np.testing.assert_allclose(found.loc[["svm", "mlp"], "p_holm"], [2 * expected[0], expected[1]])
    text = differences_table(found.reset_index())
    assert "**-0.550 (p = 0.003)**" in text and "(p = 1.000)" in text


def test_another_column_is_compared_the_same_way() -> None:
    runs = runs_of({"a": [[1.0, 2.0, 3.0]], "b": [[1.5, 2.4, 3.3]]})
    found = paired_tests(runs.rename(columns={"rmse": "value"}), [Contrast("a", "b")], "value")
    pd.testing.assert_frame_equal(found, paired_tests(runs, [Contrast("a", "b")]))


def test_holm_steps_down() -> None:
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, np.nan, 0.02, 0.9])), [0.06, 0.04, np.nan, 0.06, 0.9])


@pytest.mark.parametrize("errors", [[[1.0]], [[1.0, 2.0, 3.0]]])
def test_without_spread_there_is_no_test(errors: list[list[float]]) -> None:
    shifted = [[value + 0.25 for value in errors[0]]]
    found = paired_tests(runs_of({"a": errors, "b": shifted}), [Contrast("a", "b")])
    assert found["difference"].item() == -0.25 and found[["p", "p_holm"]].isna().all(axis=None)
    assert "| -0.250 |" in differences_table(found)


def test_the_table_has_mean_and_standard_deviation_over_seeds() -> None:
    runs = runs_of({"a": [[1.0, 2.0], [3.0, 3.0]]}).sort_index()
    assert rmse_table(runs).splitlines() == [
        "| features | D SVM | D MLP |",
        "|---|---|---|",
        "| a | 1.500 ± 0.707 | 3.000 ± 0.000 |",
    ]
