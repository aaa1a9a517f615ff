"""The errors that callers' mistakes raise. All are `ValueError`s, so `except ValueError` catches every one."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "InvalidShapeError",
    "InvalidSmilesError",
    "UnknownTokenError",
]


class InvalidSmilesError(ValueError):
    """A molecule that cannot be used: not text, empty, not parsable, or too long for the model."""


class UnknownTokenError(InvalidSmilesError):
    """A SMILES with a token that the vocabulary does not hold."""


class InvalidShapeError(ValueError):
    """An array or tensor whose shape does not fit the contract of the function that got it."""


class ConfigError(ValueError):
    """A setting that is unknown, out of range, or at odds with another setting."""


class DataError(ValueError):
    """A file that is missing, empty, damaged, or lacks a column."""


class CheckpointError(ValueError):
    """A model file that is damaged, foreign, or belongs to another network or vocabulary."""


class DivergenceError(ValueError):
    """Training that cannot go on: a loss or gradient that is not finite, or a loss that has risen too far."""
