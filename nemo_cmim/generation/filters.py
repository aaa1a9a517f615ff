"""Which generated SMILES are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..molecules import Mol, canonical_or_none, contains, parse, substructures

__all__ = ["Filter"]


@dataclass(frozen=True)
class Filter:
    """Conditions on a SMILES.

    Attributes:
        valid_only: RDKit can parse it.
        unique: It is a molecule, or an invalid text, that was not kept before.
        must_contain: SMARTS of substructures that it contains, all of them; it is valid then.

    Raises:
        ConfigError: If a SMARTS cannot be parsed.
    """

    valid_only: bool = False
    unique: bool = False
    must_contain: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        _ = self._patterns  # an error in a SMARTS is raised here

    @property
    def keeps_all(self) -> bool:
        """Whether there is no condition."""
        return not (self.valid_only or self.unique or self._patterns)

    def accepts(self, smiles: str, kept: set[str]) -> bool:
        """Whether a SMILES is kept. With `unique`, its canonical form is added to `kept`."""
        if self.keeps_all:
            return True
        canonical = canonical_or_none(smiles) or None  # the empty SMILES is no molecule
        if canonical is None and (self.valid_only or self._patterns):
            return False
        if canonical is not None and self._patterns and not contains(parse(canonical), self._patterns):
            return False
        if not self.unique:
            return True
        is_new = (canonical or smiles) not in kept
        kept.add(canonical or smiles)
        return is_new

    @cached_property
    def _patterns(self) -> list[Mol]:
        return substructures(self.must_contain)
