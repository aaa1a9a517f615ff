"""Checks of numbers that a caller passes."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ConfigError

__all__ = ["check_choice", "check_flag", "check_fraction", "check_integer", "check_positive", "check_radius", "check_seed"]


def check_integer(name: str, value: Any, minimum: int = 1, maximum: int | None = None, *, optional: bool = False) -> None:
    """Raises a `ConfigError` if the argument `name` is not an integer of at least `minimum` and at most `maximum`.

    Args:
        name: Name of the argument.
        value: Its value; a bool is not an integer.
        minimum: Lower bound.
        maximum: Upper bound; None: there is none.
        optional: Whether None is allowed.
    """
    if value is None and optional:
        return
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{name} must be an integer, found {value!r} ({type(value).__name__}).")
    number = int(value)
    if number < minimum:
        raise ConfigError(f"{name} must be at least {minimum}, found {value}.")
    if maximum is not None and number > maximum:
        raise ConfigError(f"{name} must be at most {maximum}, found {value}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises a `ConfigError` if the argument `name` is not one of these names."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, found {value!r}.")


def check_flag(name: str, value: Any) -> None:
    """Raises a `ConfigError` if the argument `name` is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} must be True or False, found {value!r} ({type(value).__name__}).")


def check_seed(seed: Any) -> None:
    """Raises a `ConfigError` if a seed is neither None nor an integer from 0 to 2**63 - 1."""
    check_integer("seed", seed, 0, 2**63 - 1, optional=True)


def check_radius(radius: Any) -> None:
    """Raises a `ConfigError` if `scaled_radius` is not a finite number of at least 0."""
    if not _is_number(radius) or not 0 <= radius < math.inf:
        raise ConfigError(f"scaled_radius must be a finite number of at least 0, found {radius!r}.")


def check_positive(name: str, value: Any, most: float = math.inf, *, optional: bool = False) -> None:
    """Raises a `ConfigError` if the argument `name` is not a finite number above 0 and at most `most`."""
    if value is None and optional:
        return
    if not _is_number(value) or not 0 < value <= most or value == math.inf:
        limits = "" if most == math.inf else f" and at most {most:g}"
        raise ConfigError(f"{name} must be a number above 0{limits}, found {value!r}.")


def check_fraction(name: str, value: Any) -> None:
    """Raises a `ConfigError` if the argument `name` is not a number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, found {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
