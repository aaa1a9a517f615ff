"""Which generated SMILES are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..arguments import check_flag
from ..molecules import Mol, canonical_or_none, contains, parse, substructures

__all__ = ["Filter", "Seen"]


@dataclass
class Seen:
    """The SMILES that a `Filter` has judged so far.

    Attributes:
        drawn: Number of SMILES.
        valid: How many of them RDKit can parse.
        kept: How many of them were kept.
        molecules: What was kept with `unique`, as canonical SMILES.
    """

    drawn: int = 0
    valid: int = 0
    kept: int = 0
    molecules: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.drawn:,} drawn, {self.valid:,} valid, {self.kept:,} kept"


@dataclass(frozen=True)
class Filter:
    """Conditions on a SMILES.

    Attributes:
        valid_only: RDKit can parse it.
        unique: It is a molecule, or an invalid text, that was not kept before.
        must_contain: SMARTS of substructures that it contains, all of them; it is valid then.

    Raises:
        ConfigError: If `valid_only` or `unique` is not a bool, or if a SMARTS cannot be parsed.
    """

    valid_only: bool = False
    unique: bool = False
    must_contain: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("valid_only", "unique"):
            check_flag(name, getattr(self, name))
        _ = self._patterns  # an error in a SMARTS is raised here

    @property
    def keeps_all(self) -> bool:
        """Whether there is no condition."""
        return not (self.valid_only or self.unique or self._patterns)

    def accepts(self, smiles: str, seen: Seen) -> bool:
        """Whether a SMILES is kept. It is counted in `seen`, but not whether it is valid if there is no condition."""
        seen.drawn += 1
        is_kept = self.keeps_all or self._meets_conditions(smiles, seen)
        seen.kept += is_kept
        return is_kept

    def _meets_conditions(self, smiles: str, seen: Seen) -> bool:
        canonical = canonical_or_none(smiles) or None  # the empty SMILES is no molecule
        seen.valid += canonical is not None
        if canonical is None and (self.valid_only or self._patterns):
            return False
        if canonical is not None and self._patterns and not contains(parse(canonical), self._patterns):
            return False
        if not self.unique:
            return True
        is_new = (canonical or smiles) not in seen.molecules
        seen.molecules.add(canonical or smiles)
        return is_new

    @cached_property
    def _patterns(self) -> list[Mol]:
        return substructures(self.must_contain)
