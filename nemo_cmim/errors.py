"""Errors of this package. All are subclasses of `ValueError`, so `except ValueError` catches all of them."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "InvalidLatentError",
    "InvalidShapeError",
    "InvalidSmilesError",
    "UnknownTokenError",
]


class InvalidSmilesError(ValueError):
    """A molecule that cannot be used: not text, empty, not parsable, or too long for the model."""


class UnknownTokenError(InvalidSmilesError):
    """A SMILES with a token that is not in the vocabulary."""


class InvalidShapeError(ValueError):
    """An array or tensor with an unexpected shape."""


class InvalidLatentError(ValueError):
    """Latents that cannot be decoded: not numbers, not finite, or vectors of another kind."""


class ConfigError(ValueError):
    """A setting that is unknown, out of range, or in conflict with another setting."""


class DataError(ValueError):
    """A file that is missing, empty, damaged, or lacks a column."""


class CheckpointError(ValueError):
    """A model file or checkpoint that is damaged, was written by another project, or does not match the network or vocabulary."""


class DivergenceError(ValueError):
    """Training that cannot continue: a loss or gradient is not finite, or the loss has risen too far."""
