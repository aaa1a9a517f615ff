"""Numbers of any magnitude as text, with significant digits in place of fixed decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

__all__ = ["Notation"]

_DECIMALS = 3
_FIXED = range(-3, 6)  # exponents of numbers that are written without an exponent
_SIGNIFICANT = 3  # digits of the smallest number, at least
_LONGEST = 6  # digits of the smallest number, at most
_RANGE = 3  # orders of magnitude between the largest and the smallest number that one notation is made for


class Notation(NamedTuple):
    """How numbers that belong together are written: with the same exponent and the same number of decimals.

    Attributes:
        exponent: power of ten that is written after the number; 0: none.
        decimals: number of decimals.
    """

    exponent: int
    decimals: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Notation:
        """The notation for some numbers. It has an exponent if the largest is below 0.001 or not below 1,000,000.

        There are three decimals; more if the smallest number would have fewer than three significant digits, fewer if it would have more
        than six. Zeros, numbers that are not finite, and numbers far below the largest have no influence.
        """
        exponents = [_exponent(value) for value in values if value and math.isfinite(value)]
        if not exponents:
            return cls(0, _DECIMALS)
        high = max(exponents)
        low = max(min(exponents), high - _RANGE)
        exponent = 0 if high in _FIXED else high
        return cls(exponent, max(min(_DECIMALS, _LONGEST - 1 - low + exponent), _SIGNIFICANT - 1 - low + exponent))

    def shows(self, value: float) -> bool:
        """Whether a number has a significant digit in this notation."""
        return not value or not math.isfinite(value) or _exponent(value) - self.exponent >= -self.decimals

    def text(self, value: float) -> str:
        """The number: `2.212`, `1.234e-09`."""
        return f"{self._scaled(value)}{self._suffix}"

    def with_spread(self, mean: float, spread: float) -> str:
        """A mean with its spread: `2.212 ± 0.004`, `(1.234 ± 0.004)e-09`."""
        both = f"{self._scaled(mean)} ± {self._scaled(spread)}"
        return f"({both}){self._suffix}" if self.exponent else both

    def _scaled(self, value: float) -> str:
        if not self.exponent or not math.isfinite(value):
            return f"{value:.{self.decimals}f}"
        return f"{Decimal(float(value)).scaleb(-self.exponent):.{self.decimals}f}"  # also where 10.0**exponent is not a float

    @property
    def _suffix(self) -> str:
        return f"e{self.exponent:+03d}" if self.exponent else ""


def _exponent(value: float) -> int:
    """The exponent of a number in scientific notation, after rounding to the significant digits that are shown."""
    return int(f"{value:.{_DECIMALS}e}".partition("e")[2])
