"""Transforms of targets, such as the logarithm, which a model learns in place of the values.

Shape letters: N rows, T targets, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from ..arguments import check_choice
from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TRANSFORMS", "TargetTransform", "check_domain", "check_value"]

TRANSFORMS = ("log10", "log1p", "quantile")
_LOWEST = {"log10": 0.0, "log1p": -1.0}  # values must be above
_QUANTILES = 1001


class TargetTransform:
    """A monotone transform of each target, with its inverse.

    * `log10`: the decimal logarithm.
    * `log1p`: ln(1 + value).
    * `quantile`: normal scores: the value at quantile q of the training values becomes the value of a standard normal distribution at q.
      What is outside of the range of the training values is moved to its end.

    Args:
        name: A name of `TRANSFORMS`; None: no transform.
        values_QT: For `quantile`, the values at evenly spaced quantiles, see `fit`.

    Raises:
        ConfigError: If the name is unknown.
    """

    def __init__(self, name: str | None, values_QT: NDArray[np.float64] | None = None) -> None:
        if name is not None:
            check_choice("target_transform", name, TRANSFORMS)
        self.name = name
        self.values_QT = values_QT

    def fit(self, targets_NT: NDArray[np.float64]) -> TargetTransform:
        """Learns the quantiles of the training values; NaN is ignored."""
        if self.name == "quantile":
            count = min(_QUANTILES, len(targets_NT))
            self.values_QT = np.nanquantile(targets_NT, np.linspace(0, 1, count), axis=0)
        return self

    def forward(self, targets_NT: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transformed values [N, T]; NaN stays NaN."""
        if self.name == "quantile":
            return np.column_stack([self._scores(column, number) for number, column in enumerate(targets_NT.T)])
        return targets_NT if self.name is None else {"log10": np.log10, "log1p": np.log1p}[self.name](targets_NT)

    def backward(self, values_NT: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in the unit of the targets [N, T]; infinite values become the ends of the range."""
        if self.name == "quantile":
            assert self.values_QT is not None, "fitted"
            levels = _levels(len(self.values_QT))
            return np.column_stack([np.interp(ndtr(c), levels, of) for c, of in zip(values_NT.T, self.values_QT.T)])
        with np.errstate(over="ignore"):
            if self.name == "log10":
                return np.power(10.0, values_NT)
            return np.expm1(values_NT) if self.name == "log1p" else values_NT

    def _scores(self, values_N: NDArray[np.float64], number: int) -> NDArray[np.float64]:
        """Normal scores. A value that several quantiles share gets the middle of them."""
        assert self.values_QT is not None, "fitted"
        of, levels = self.values_QT[:, number], _levels(len(self.values_QT))
        return ndtri((np.interp(values_N, of, levels) - np.interp(-values_N, -of[::-1], levels) + 1) / 2)


def _levels(count: int) -> NDArray[np.float64]:
    """Probabilities of the quantiles: those of the ends are not 0 and 1, whose normal scores are infinite."""
    return (np.arange(count) + 0.5) / count


def check_value(name: str | None, value: float) -> None:
    """Raises a `DataError` if a value has no logarithm. The message continues a sentence that names the place."""
    if name in _LOWEST and value <= _LOWEST[name]:
        raise DataError(f"is {value:g}, but target_transform={name!r} needs values above {_LOWEST[name]:g}")


def check_domain(name: str | None, targets_NT: NDArray[np.float64], names: Sequence[str], rows: NDArray[np.int64]) -> None:
    """Raises a `DataError` if a target has a value without a logarithm.

    Args:
        name: The transform.
        targets_NT: The values.
        names: Names of the targets.
        rows: Index of each row in the caller's table.
    """
    if name not in _LOWEST:
        return
    wrong = np.argwhere(targets_NT <= _LOWEST[name])
    if len(wrong):
        row, target = wrong[0]
        raise DataError(
            f"The target {names[target]!r} at index {rows[row]} is {targets_NT[row, target]}, but target_transform={name!r} needs values "
            f"above {_LOWEST[name]:g} ({len(wrong)} values are not). Correct them, or use a different transform."
        )
