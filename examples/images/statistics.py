"""z-scores, ranks, slopes and tests of the paper (Sec. 3.3, 3.4, E), on plain tables.

A table of scores has a row for each `data` (image set), `evaluation` (embedding and classifier), `model`, `batch_size` and `seed`, with
`accuracy`. `average_seeds` removes `seed`; all other functions require its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress, t, ttest_1samp

__all__ = ["MeanTest", "add_differences", "average_seeds", "paired_test", "ranks", "slope_test", "slopes", "z_scores"]

TASK = ["data", "evaluation"]


class MeanTest(NamedTuple):
    """Two-sided one-sample t-test of a mean against 0. `p` is NaN with fewer than two values, or if all are equal.

    Attributes:
        mean: Mean of the values.
        sd: Standard deviation of the values (divided by n - 1); NaN with fewer than two.
        p: p-value.
        n: Number of values.
    """

    mean: float
    sd: float
    p: float
    n: int

    @property
    def half_width(self) -> float:
        """Half of the 95 % confidence interval of the mean; NaN with fewer than two values."""
        return float(t.ppf(0.975, self.n - 1) * self.sd / np.sqrt(self.n)) if self.n > 1 else float("nan")


def average_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy over the seeds of each run. All runs of a set must have the same seeds; see `scores.comparable`."""
    return scores.groupby([*TASK, "model", "batch_size"], sort=False)["accuracy"].mean().reset_index()


def z_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Adds `z`: accuracy minus mean, over standard deviation, of all models and batch sizes of an image set and evaluation (Sec. 3.3).

    The standard deviation is that of the population (divided by n, as `scipy.stats.zscore`). If all accuracies are equal, z is 0.
    """
    grouped = scores.groupby(TASK)["accuracy"]
    deviation = grouped.transform(lambda values: values.std(ddof=0))
    centred = scores["accuracy"] - grouped.transform("mean")
    return scores.assign(z=(centred / deviation.where(deviation > 1e-12)).fillna(0.0))


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Adds `rank` among all models and batch sizes of an image set and evaluation: 1 is the best; equal accuracies share the mean rank."""
    return scores.assign(rank=scores.groupby(TASK)["accuracy"].rank(ascending=False, method="average"))


def slopes(scores: pd.DataFrame, by: Sequence[str] = ("data", "evaluation")) -> pd.DataFrame:
    """Slope of a straight line through `z` against batch size (Sec. 3.4), for each model and group.

    Args:
        scores: A table with the column `z`, which is averaged over the rows of a model, group and batch size.
        by: Groups. ("data", "evaluation"): Fig. 8 and Table 2; ("evaluation",): Fig. 4, where z is averaged over the sets first.

    Returns:
        `model`, the columns `by`, and `slope` (change of z for one more image in a batch). Groups with a single batch size are left
        out.
    """
    rows = []
    for group, some in scores.groupby(["model", *by], sort=False):
        line = some.groupby("batch_size")["z"].mean()
        if len(line) > 1:
            rows.append((*group, float(linregress(line.index.to_numpy(float), line.to_numpy(float)).slope)))
    return pd.DataFrame(rows, columns=["model", *by, "slope"])


def add_differences(found: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Adds the differences of the slopes of two models at equal groups, as a model named "first - second".

    Args:
        found: Rows of `slopes`.
        pairs: Names of models; pairs of which one is absent are left out.
    """
    by = [name for name in found.columns if name not in ("model", "slope")]
    wide = found.pivot(index=by, columns="model", values="slope")
    present = [(first, second) for first, second in pairs if {first, second} <= set(wide.columns)]
    added = [
        (wide[first] - wide[second]).dropna().rename("slope").reset_index().assign(model=f"{first} - {second}")
        for first, second in present
    ]
    return pd.concat([found, *added], ignore_index=True)


def slope_test(found: pd.DataFrame, unit: str | None = None) -> dict[str, MeanTest]:
    """Two-sided t-test of the mean slope of each model against 0 (Table 2).

    Args:
        found: Rows of `slopes`.
        unit: None: each slope is a value, as in the paper. The evaluations of one image set use the same networks and images, so they are
            not independent, and p is too small. "data": the values are the mean slopes of image sets, which are independent.
    """
    values = {
        model: some["slope"] if unit is None else some.groupby(unit)["slope"].mean()
        for model, some in found.groupby("model", sort=False)
    }
    return {str(model): _mean_test(some.to_numpy(float)) for model, some in values.items()}


def paired_test(scores: pd.DataFrame, first: str, second: str, value: str = "z", unit: Sequence[str] = ("data",)) -> MeanTest:
    """Whether `first` is better than `second`: t-test of the differences of `value` at equal evaluation and batch size.

    Args:
        scores: A table with the column `value`.
        first: Name of a model.
        second: Name of another one.
        value: Name of the column.
        unit: The differences of each unit are averaged, since they are not independent; n is the number of units with both models.
            ("data",): image sets. ("data", "batch_size"): pairs of networks; such a test says nothing about other image sets.
    """
    wide = scores.pivot_table(index=[*TASK, "batch_size"], columns="model", values=value)
    if not {first, second} <= set(wide.columns):
        return _mean_test(np.empty(0))
    difference = (wide[first] - wide[second]).dropna()
    return _mean_test(difference.groupby(list(unit)).mean().to_numpy(float))


def _mean_test(values: np.ndarray) -> MeanTest:
    nan = float("nan")
    if not len(values):
        return MeanTest(nan, nan, nan, 0)
    sd = float(values.std(ddof=1)) if len(values) > 1 else nan
    p = float(ttest_1samp(values, 0.0).pvalue) if len(values) > 1 and np.ptp(values) > 1e-12 else nan
    return MeanTest(float(values.mean()), sd, p, len(values))
