"""What a search optimises: named scores, functions of the caller, and weighted sums of them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..molecules import penalised_logp, qed, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OBJECTIVES", "Objective"]

Score = Callable[[list[str]], Any]

OBJECTIVES: dict[str, Score] = {"QED": qed, "plogP": penalised_logp}
"""Scores by name; larger is better for both."""


class Objective:
    """A weighted sum of scores of molecules.

    Args:
        objective: A name of `OBJECTIVES`, a function that takes a list of SMILES and returns a number for each, or a mapping from
            names and functions to weights.

    Attributes:
        name: Name of the sum.
        errors: The errors that functions raised in the last call, by SMILES; the first one for each.

    Raises:
        ConfigError: If it is none of these, or if a weight is not a finite number.
    """

    def __init__(self, objective: Any) -> None:
        parts = objective if isinstance(objective, Mapping) else {objective: 1.0} if callable(objective) else {str(objective): 1.0}
        if not parts:
            raise ConfigError("The objective has no parts. Pass a name, a function, or a mapping from them to weights.")
        self.errors: dict[str, str] = {}
        self._parts: list[tuple[Score, float]] = []
        for key, weight in parts.items():
            if not callable(key) and key not in OBJECTIVES:
                raise ConfigError(
                    f"objective must be one of {', '.join(OBJECTIVES)}, or a function of a list of SMILES, found {shorten(key)}."
                )
            if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not math.isfinite(weight):
                raise ConfigError(f"The weight of an objective must be a finite number, found {weight!r}.")
            self._parts.append((key if callable(key) else OBJECTIVES[key], float(weight)))
        self.name = " + ".join(_name(key, float(weight)) for key, weight in parts.items())

    def __call__(self, smiles: Sequence[str]) -> NDArray[np.float64]:
        """Scores of N valid SMILES, float64 [N]; NaN where a function raised an error or returned NaN or infinity.

        A function may return a list, an array, a tensor or a Series. If it raises an error for a list, it is called for each SMILES of
        the list.

        Raises:
            ConfigError: If a function does not return one number for each SMILES.
        """
        self.errors = {}
        total = np.zeros(len(smiles))
        for function, weight in self._parts:
            total += weight * self._scores(function, smiles)
        return np.where(np.isfinite(total), total, np.nan)

    def _scores(self, function: Score, smiles: Sequence[str]) -> NDArray[np.float64]:
        if not smiles:
            return np.zeros(0)
        try:
            values = function(list(smiles))  # a copy, which the function may change
        except Exception as error:  # noqa: BLE001  # a function of the caller may raise anything
            if len(smiles) > 1:
                return np.concatenate([self._scores(function, [one]) for one in smiles])
            self.errors.setdefault(smiles[0], f"{_title(function)}({list(smiles)}) raised {shorten(error, 200)}")
            return np.full(1, np.nan)
        return _numbers(function, values, smiles)


def _numbers(function: Score, values: Any, smiles: Sequence[str]) -> NDArray[np.float64]:
    """What a function returned for N SMILES, float64 [N]."""
    try:
        if hasattr(values, "detach"):  # a tensor, maybe with a gradient or on a GPU
            values = values.detach().cpu().double().numpy()
        elif isinstance(values, (list, tuple)):  # maybe of tensors
            values = [value.item() if hasattr(value, "item") else value for value in values]
        scores = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"The scoring function {_title(function)} must return numbers, found {shorten(values)}.") from error
    if scores.shape != (len(smiles),):
        raise ConfigError(
            f"The scoring function {_title(function)} must return one number for each SMILES: for {len(smiles)} SMILES it returned an "
            f"array of the shape {scores.shape}."
        )
    return scores


def _name(key: Any, weight: float) -> str:
    title = _title(key) if callable(key) else str(key)
    return title if weight == 1 else f"{weight:g} x {title}"


def _title(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
