"""Heads on the vectors of the model as it is: the start of fine-tuning, which then learns to correct them.

Shape letters: N rows, I width of a vector, P inputs of the linear map, T targets, W outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVR

from ...errors import CheckpointError
from .head import Outputs

__all__ = ["FrozenHead", "fit_frozen"]

_FOLDS = 5
_SVR_C = (0.3, 1.0, 3.0, 10.0)
_LOGISTIC_C = (1e-4, 1e-3, 1e-2, 1e-1)

Floats = NDArray[np.float64]


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
    inputs = rbf_kernel(x, x, 1 / x.shape[1]) if is_regression else x
    molecules = int(molecule_of_row.max()) + 1
    folds = min(_FOLDS, molecules)
    fold_of_row = (np.random.default_rng((seed, molecules)).permutation(molecules) % folds)[molecule_of_row]
    weights, bias = np.zeros((inputs.shape[1], sum(outputs.widths))), np.zeros(sum(outputs.widths))
    out_of_fold = np.zeros((len(x), len(bias)))
    for part, target_N in zip(outputs.slices, targets_NT.T):
        width, known, lowest = part.stop - part.start, ~np.isnan(target_N), np.inf
        for strength in _SVR_C if is_regression else _LOGISTIC_C:
            found = np.zeros((len(x), width))
            for fold in range(folds):
                tested = fold_of_row == fold
                w, b = _fit(inputs, target_N, known & ~tested, width, strength, is_regression)
                found[tested] = inputs[tested] @ w + b
            error = _error(found[known], target_N[known], is_regression)
            if error < lowest:
                lowest, out_of_fold[:, part] = error, found
                weights[:, part], bias[part] = _fit(inputs, target_N, known, width, strength, is_regression)
    return FrozenHead(centre, scale, x if is_regression else x[:0], weights, bias), out_of_fold


def _error(outputs_NW: Floats, target_N: Floats, is_regression: bool) -> float:
    if is_regression:
        return float(np.square(outputs_NW[:, 0] - target_N).mean())
    return float((logsumexp(outputs_NW, axis=1) - np.take_along_axis(outputs_NW, target_N.astype(int)[:, None], 1)[:, 0]).mean())


def _fit(
    inputs_NP: Floats, target_N: Floats, used_N: NDArray[np.bool_], width: int, strength: float, is_regression: bool
) -> tuple[Floats, Floats]:
    """Weights [P, width] and constants [width] of one target. Without two different values, the constants alone."""
    rows, y = np.flatnonzero(used_N), target_N[used_N]
    weights = np.zeros((inputs_NP.shape[1], width))
    if is_regression:
        bias = np.array([y.mean() if len(y) else 0.0])
        if np.ptp(y) if len(y) else 0:
            model = SVR(kernel="precomputed", C=strength).fit(inputs_NP[np.ix_(rows, rows)], y)
            weights[rows[model.support_], 0], bias = model.dual_coef_[0], model.intercept_
        return weights, bias
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
