"""Quality of predictions for one target. A metric that is not defined for the rows is NaN.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["classification_metrics", "regression_metrics"]


def regression_metrics(truth_N: NDArray[np.float64], predicted_N: NDArray[np.float64]) -> dict[str, float]:
    """RMSE and MAE in the unit of the target, R2, and Spearman's rank correlation."""
    errors = predicted_N - truth_N
    spread = float(np.square(truth_N - truth_N.mean()).sum())
    return {
        "rmse": float(np.sqrt(np.square(errors).mean())),
        "mae": float(np.abs(errors).mean()),
        "r2": 1 - float(np.square(errors).sum()) / spread if spread else np.nan,
        "spearman": _correlation(rankdata(truth_N), rankdata(predicted_N)),
    }


def classification_metrics(codes_N: NDArray[np.int64], probabilities_NC: NDArray[np.float64]) -> dict[str, float]:
    """ROC-AUC, PR-AUC (average precision), Matthews correlation coefficient and Brier score.

    With two classes, the second of the sorted labels is the positive class. With more, ROC-AUC and PR-AUC are means over the classes, each
    against all others, of those that have rows; the Brier score is the sum over classes, so that it is between 0 and 2.
    """
    count = probabilities_NC.shape[1]
    is_class_NC = codes_N[:, None] == np.arange(count)
    scored = [c for c in (range(1, 2) if count == 2 else range(count)) if 0 < is_class_NC[:, c].sum() < len(codes_N)]
    squares_NC = np.square(probabilities_NC - is_class_NC)
    return {
        "roc_auc": _mean([roc_auc_score(is_class_NC[:, c], probabilities_NC[:, c]) for c in scored]),
        "pr_auc": _mean([average_precision_score(is_class_NC[:, c], probabilities_NC[:, c]) for c in scored]),
        "mcc": float(matthews_corrcoef(codes_N, probabilities_NC.argmax(axis=1))) if np.ptp(codes_N) else np.nan,
        "brier": float(squares_NC[:, 1].mean() if count == 2 else squares_NC.sum(axis=1).mean()),
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else np.nan


def _correlation(a_N: NDArray[np.float64], b_N: NDArray[np.float64]) -> float:
    if np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return np.nan
    return float(np.corrcoef(a_N, b_N)[0, 1])
