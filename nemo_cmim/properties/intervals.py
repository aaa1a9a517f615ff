"""Prediction intervals and sets with a stated coverage, from predictions of models that have not seen the molecule.

Cross-conformal prediction (Vovk 2015): the scores are those of out-of-fold predictions, and the final model is fitted on all rows. If new
molecules are drawn as the training molecules were, the fraction of true values within is about `coverage`; for new chemistry it is lower.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["conformal_quantile", "fewest_scores", "held_out_coverage", "prediction_sets", "warn_of_few_scores"]


def conformal_quantile(scores_N: NDArray[np.float64], coverage: float) -> float:
    """The smallest score that at least ceil((N + 1) coverage) of the N scores do not exceed; infinite if N is too small.

    A score is an absolute residual, or 1 - the probability of the true class.
    """
    rank = math.ceil((len(scores_N) + 1) * coverage - 1e-9)
    return math.inf if rank > len(scores_N) else float(np.partition(scores_N, rank - 1)[rank - 1])


def fewest_scores(coverage: float) -> int:
    """The smallest number of scores with a finite quantile."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def held_out_coverage(scores_N: NDArray[np.float64], folds_N: NDArray[np.int64], coverage: float) -> float:
    """The fraction of true values in intervals or sets whose width is known from the scores of the other folds alone.

    NaN if all scores are of one fold.

    Args:
        scores_N: Scores of out-of-fold predictions.
        folds_N: The fold of each.
        coverage: The stated coverage.
    """
    folds = np.unique(folds_N)
    if len(folds) < 2:
        return math.nan
    covered = [scores_N[folds_N == fold] <= conformal_quantile(scores_N[folds_N != fold], coverage) for fold in folds]
    return float(np.concatenate(covered).mean())


def prediction_sets(probabilities_NC: NDArray[np.float64], quantile: float) -> NDArray[np.bool_]:
    """Which classes are in the set of each row, bool [N, C]. A set may be empty."""
    return 1 - probabilities_NC <= quantile


def warn_of_few_scores(names: Sequence[str], scores: Sequence[NDArray[np.float64]], coverage: float) -> None:
    """Warns of each target with too few scores: its intervals are infinite, and its sets contain all classes."""
    fewest = fewest_scores(coverage)
    for name, of_target in zip(names, scores):
        if len(of_target) < fewest:
            warnings.warn(
                f"The target {name!r} has {len(of_target)} tested rows, but intervals with a coverage of {coverage} need {fewest}: they "
                "are infinite. Use more data or a lower coverage.",
                stacklevel=3,
            )
