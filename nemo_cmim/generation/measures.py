"""Measures of generated SMILES: which are valid, different and new. Molecules are compared by their canonical SMILES."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ConfigError
from ..molecules import canonical_or_none

__all__ = ["novelty", "uniqueness", "validity"]


def validity(smiles: Sequence[str]) -> float:
    """Fraction of N strings that RDKit can parse to a molecule.

    Raises:
        ConfigError: If there are no strings.
    """
    return len(_valid(smiles)) / len(smiles)


def uniqueness(smiles: Sequence[str]) -> float:
    """Fraction of the valid strings that are different molecules; NaN if none is valid.

    Raises:
        ConfigError: If there are no strings.
    """
    valid = _valid(smiles)
    return len(set(valid)) / len(valid) if valid else float("nan")


def novelty(smiles: Sequence[str], known: Iterable[str]) -> float:
    """Fraction of the different valid molecules that are not among the known ones; NaN if none is valid.

    Args:
        smiles: Generated strings.
        known: Canonical SMILES, such as those of the training data.

    Raises:
        ConfigError: If there are no strings.
    """
    found = set(_valid(smiles))
    return len(found.difference(known)) / len(found) if found else float("nan")


def _valid(smiles: Sequence[str]) -> list[str]:
    if not len(smiles):
        raise ConfigError("There are no SMILES to measure. Pass at least one.")
    return [canonical for canonical in map(canonical_or_none, smiles) if canonical]
