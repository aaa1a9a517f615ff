"""Measures of generated SMILES: which are valid, different and new. Molecules are compared by their canonical SMILES."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized

from ..errors import ConfigError
from ..molecules import canonical_or_none, shorten

__all__ = ["novelty", "uniqueness", "validity"]


def validity(smiles: Sequence[str]) -> float:
    """Fraction of N strings that RDKit can parse to a molecule.

    Raises:
        ConfigError: If there are no strings, or if something else than a sequence is passed, such as one string.
    """
    return len(_valid(smiles)) / len(smiles)


def uniqueness(smiles: Sequence[str]) -> float:
    """Fraction of the valid strings that are different molecules; NaN if none is valid.

    Raises:
        ConfigError: If there are no strings, or if something else than a sequence is passed, such as one string.
    """
    valid = _valid(smiles)
    return len(set(valid)) / len(valid) if valid else float("nan")


def novelty(smiles: Sequence[str], known: Iterable[str]) -> float:
    """Fraction of the different valid molecules that are not among the known ones; NaN if none is valid.

    Args:
        smiles: Generated strings.
        known: Canonical SMILES, such as those of the training data.

    Raises:
        ConfigError: If there are no strings, or if something else than a sequence is passed, such as one string.
    """
    if isinstance(known, (str, bytes)):
        raise ConfigError(f"known must be a collection of SMILES, found the single value {shorten(known)}. Pass [value].")
    found = set(_valid(smiles))
    return len(found.difference(known)) / len(found) if found else float("nan")


def _valid(smiles: Sequence[str]) -> list[str]:
    if isinstance(smiles, (str, bytes)):
        raise ConfigError(f"smiles must be a sequence of SMILES, found the single value {shorten(smiles)}. Pass [value].")
    if not isinstance(smiles, Sized):
        raise ConfigError(f"smiles must be a sequence of SMILES, found {type(smiles).__name__}. Pass list(smiles).")
    if not len(smiles):
        raise ConfigError("There are no SMILES to measure. Pass at least one.")
    return [canonical for canonical in map(canonical_or_none, smiles) if canonical]
