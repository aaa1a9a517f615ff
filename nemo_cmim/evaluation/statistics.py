"""Tests of significance for differences between sets of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Contrast", "holm", "paired_tests"]


class Contrast(NamedTuple):
    """Two sets of features, or models, compared under each seed. If the difference of an error is negative, the first is better."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.first} - {self.second}"


def paired_tests(runs: pd.DataFrame, contrasts: Sequence[Contrast], value: str = "rmse") -> pd.DataFrame:
    """Student's paired two-sided t-test of each contrast, data set and head; the runs of one seed are a pair.

    In runs of `measure.rmse_of_runs`, a seed is a repetition of the split and of the head's random numbers (and of the weights, for random
    weights). Each model is one training run, and the molecules are the same under all seeds. So a small p-value means that the difference
    is not due to the choice of the split. It says nothing about another training run or about other molecules.

    Args:
        runs: Rows as `measure.rmse_of_runs` returns them, of one split.
        contrasts: Pairs of names of features.
        value: The column that is compared.

    Returns:
        `contrast, data, head, seeds, difference, sd, p, p_holm`. The difference is the mean of first minus second, in the data's unit, and
        `sd` is its (sample) standard deviation over seeds. `p_holm` is the p-value after Holm's correction over the data sets and heads of
        a contrast. The last three are NaN if there is one seed only; both p-values also if all differences are equal.
    """
    wide = runs.pivot_table(index=["data", "head", "seed"], columns="features", values=value, sort=False)
    tables = []
    for contrast in contrasts:
        rows = []
        for (data, head), pairs in wide.groupby(["data", "head"], sort=False):
            difference = pairs[contrast.first] - pairs[contrast.second]
            is_testable = len(pairs) > 1 and np.ptp(difference) > 0
            p = float(ttest_rel(pairs[contrast.first], pairs[contrast.second]).pvalue) if is_testable else float("nan")
            rows.append((contrast.name, data, head, len(pairs), difference.mean(), difference.std(), p))
        found = pd.DataFrame(rows, columns=["contrast", "data", "head", "seeds", "difference", "sd", "p"])
        tables.append(found.assign(p_holm=holm(found["p"].to_numpy())))
    return pd.concat(tables, ignore_index=True)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction of p-values; NaN stays NaN and is not counted."""
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p[index]))
        corrected[index] = largest
    return corrected
