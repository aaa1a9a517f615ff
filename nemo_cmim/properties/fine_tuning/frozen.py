"""Heads on the vectors of the model as it is: the start of fine-tuning, which then learns to correct them.

Shape letters: N rows, I width of a vector, P inputs of the linear map, T targets, W outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVR

from ...errors import CheckpointError
from .head import Outputs

__all__ = ["FrozenHead", "fit_frozen"]

MAX_KERNEL_ROWS = 5000
"""With more rows, regression has no kernel: N x N values need 0.2 GB for 5,000 rows, and 20 GB for 50,000."""

_FOLDS = 5
_SVR_C = (0.3, 1.0, 3.0, 10.0)
_RIDGE_ALPHA = (1.0, 10.0, 100.0, 1000.0)
_LOGISTIC_C = (1e-4, 1e-3, 1e-2, 1e-1)

Floats = NDArray[np.float64]
_Fit = Callable[[Floats, NDArray[np.int64], Floats, Floats, float], tuple[Floats, Floats]]


class FrozenHead(NamedTuple):
    """A linear map of standardised vectors, or of their kernel values with the training rows.

    Attributes:
        centre_I: Mean of the training vectors.
        scale_I: Their standard deviation.
        support_NI: Standardised training vectors of the kernel; no rows: the map is of the vector itself.
        weights_PW: Weights of the kernel values (P = N) or of the vector (P = I).
        bias_W: Constants.
    """

    centre_I: Floats
    scale_I: Floats
    support_NI: Floats
    weights_PW: Floats
    bias_W: Floats

    def outputs(self, x_NI: NDArray[np.floating]) -> Floats:
        """Standardised values, or logarithms of class probabilities up to a constant, [N, W]."""
        x = (x_NI - self.centre_I) / self.scale_I
        inputs = rbf_kernel(x, self.support_NI, 1 / x.shape[1]) if len(self.support_NI) else x
        return np.asarray(inputs @ self.weights_PW + self.bias_W)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> FrozenHead:
        """The head whose `_asdict` this is.

        Raises:
            CheckpointError: If an array is missing.
        """
        if missing := [name for name in cls._fields if name not in arrays]:
            raise CheckpointError(
                f"The frozen head of a fine-tuned model lacks {', '.join(missing)}. The file is incomplete: fit again."
            )
        return cls(*(np.asarray(arrays[name], dtype=np.float64) for name in cls._fields))


def fit_frozen(
    x_NI: NDArray[np.floating], targets_NT: Floats, molecule_of_row: NDArray[np.int64], outputs: Outputs, seed: int
) -> tuple[FrozenHead, Floats]:
    """Fits a support vector machine to each target, or a logistic regression to each target of classes.

    The kernel of a support vector machine needs memory for N x N float64 values. With more than `MAX_KERNEL_ROWS` rows, a ridge regression
    takes its place.

    The strength of the regularisation is chosen for each target by cross-validation, in which rows of a molecule stay together.

    Args:
        x_NI: Vectors of the rows.
        targets_NT: Standardised values or class codes; NaN is missing.
        molecule_of_row: int64 [N], the molecule of each row.
        outputs: What the outputs are.
        seed: Seed of the folds.

    Returns:
        The head, fitted to all rows, and its out-of-fold outputs [N, W].
    """
    centre, scale = x_NI.mean(0, dtype=np.float64), x_NI.std(0, dtype=np.float64)
    scale[scale == 0] = 1
    x = (x_NI - centre) / scale
    is_regression = outputs.task == "regression"
    has_kernel = is_regression and len(x) <= MAX_KERNEL_ROWS
    inputs = rbf_kernel(x, x, 1 / x.shape[1]) if has_kernel else x
    strengths = _SVR_C if has_kernel else _RIDGE_ALPHA if is_regression else _LOGISTIC_C
    molecules = int(molecule_of_row.max()) + 1
    folds = min(_FOLDS, molecules)
    fold_of_row = (np.random.default_rng((seed, molecules)).permutation(molecules) % folds)[molecule_of_row]
    fit_one = _fit_svm if has_kernel else _fit_ridge if is_regression else _fit_logistic
    weights, bias = np.zeros((inputs.shape[1], sum(outputs.widths))), np.zeros(sum(outputs.widths))
    out_of_fold = np.zeros((len(x), len(bias)))
    for part, target_N in zip(outputs.slices, targets_NT.T):
        width, known, lowest = part.stop - part.start, ~np.isnan(target_N), np.inf
        for strength in strengths:
            found = np.zeros((len(x), width))
            for fold in range(folds):
                tested = fold_of_row == fold
                w, b = _fit(inputs, target_N, known & ~tested, width, strength, fit_one)
                found[tested] = inputs[tested] @ w + b
            error = _error(found[known], target_N[known], is_regression)
            if error < lowest:
                lowest, out_of_fold[:, part] = error, found
                weights[:, part], bias[part] = _fit(inputs, target_N, known, width, strength, fit_one)
    return FrozenHead(centre, scale, x if has_kernel else x[:0], weights, bias), out_of_fold


def _error(outputs_NW: Floats, target_N: Floats, is_regression: bool) -> float:
    if is_regression:
        return float(np.square(outputs_NW[:, 0] - target_N).mean())
    return float((logsumexp(outputs_NW, axis=1) - np.take_along_axis(outputs_NW, target_N.astype(int)[:, None], 1)[:, 0]).mean())


def _fit(
    inputs_NP: Floats, target_N: Floats, used_N: NDArray[np.bool_], width: int, strength: float, fit_one: _Fit
) -> tuple[Floats, Floats]:
    """Weights [P, width] and constants [width] of one target. Without two different values, the constants alone."""
    weights = np.zeros((inputs_NP.shape[1], width))
    y = target_N[used_N]
    if width == 1 and (not len(y) or not np.ptp(y)):
        return weights, np.array([y.mean() if len(y) else 0.0])
    return fit_one(inputs_NP, np.flatnonzero(used_N), y, weights, strength)


def _fit_svm(inputs_NP: Floats, rows: NDArray[np.int64], y: Floats, weights: Floats, strength: float) -> tuple[Floats, Floats]:
    model = SVR(kernel="precomputed", C=strength).fit(inputs_NP[np.ix_(rows, rows)], y)
    weights[rows[model.support_], 0] = model.dual_coef_[0]
    return weights, model.intercept_


def _fit_ridge(inputs_NP: Floats, rows: NDArray[np.int64], y: Floats, weights: Floats, strength: float) -> tuple[Floats, Floats]:
    model = Ridge(alpha=strength).fit(inputs_NP[rows], y)
    weights[:, 0] = model.coef_
    return weights, np.array([model.intercept_])


def _fit_logistic(inputs_NP: Floats, rows: NDArray[np.int64], y: Floats, weights: Floats, strength: float) -> tuple[Floats, Floats]:
    width = weights.shape[1]
    counts = np.bincount(y.astype(int), minlength=width)
    bias = np.log((counts + 0.5) / (counts.sum() + 0.5 * width))
    seen = np.flatnonzero(counts)
    if len(seen) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a start for training, not a result
            model = LogisticRegression(C=strength, max_iter=200).fit(inputs_NP[rows], y.astype(int))
        coefficients, constants = model.coef_, model.intercept_
        if len(seen) == 2:
            coefficients, constants = np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-constants, constants]) / 2
        weights[:, seen], bias[seen] = coefficients.T, constants + bias[seen].mean()
    return weights, bias
