"""Substructures, given as SMARTS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rdkit import Chem

from ..errors import ConfigError
from .parsing import Mol, quiet_rdkit, shorten

__all__ = ["contains", "substructures"]


def substructures(smarts: str | Sequence[str]) -> list[Mol]:
    """Query molecules of one SMARTS or several.

    Raises:
        ConfigError: If one cannot be parsed.
    """
    patterns = []
    for text in smarts if isinstance(smarts, Iterable) and not isinstance(smarts, str) else [smarts]:
        with quiet_rdkit():
            pattern = Chem.MolFromSmarts(text) if isinstance(text, str) and text else None
        if pattern is None:
            raise ConfigError(f"must_contain must be SMARTS, for example 'c1ccccc1', but RDKit cannot parse {shorten(text)}.")
        patterns.append(pattern)
    return patterns


def contains(mol: Mol, patterns: Sequence[Mol]) -> bool:
    """Whether a molecule contains all of these substructures."""
    return all(mol.HasSubstructMatch(pattern) for pattern in patterns)
