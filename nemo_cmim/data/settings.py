"""The settings of `prepare` that decide what is in the folder that it writes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import ConfigError
from .curate import Rules
from .splits import PAPER_TEST, PAPER_VALID, Shares

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `prepare` is to do. The same inputs and settings give the same bytes, however many machines do the work.

    Attributes:
        column: Name of the column of SMILES, if it is not `smiles` or `canonical_smiles`.
        max_molecular_weight: Heaviest molecule to keep, Da.
        max_logp: Largest Crippen logP to keep.
        max_tokens: Most tokens of the canonical SMILES.
        desalt: Keep only the largest fragment of each molecule.
        neutralise: Remove charges where protons can be added or taken away.
        trust_tranches: In a file named after a ZINC tranche whose letter puts logP below the limit, do not compute it.
        valid_fraction: Expected share of the validation split, the paper's by default. The split of a molecule then depends on its
            canonical SMILES only.
        test_fraction: Expected share of the test split, the paper's by default.
        valid_molecules: Exact size of the validation split, in place of its fraction.
        test_molecules: Exact size of the test split, in place of its fraction.
        limit: Read only this many lines.
        piece_lines: Lines that one task curates.
        shard_molecules: About how many molecules a shard is to hold.

    Raises:
        ConfigError: A setting is out of range.
    """

    column: str | None = None
    max_molecular_weight: float = 500.0
    max_logp: float = 5.0
    max_tokens: int = 511
    desalt: bool = False
    neutralise: bool = False
    trust_tranches: bool = True
    valid_fraction: float = PAPER_VALID
    test_fraction: float = PAPER_TEST
    valid_molecules: int | None = None
    test_molecules: int | None = None
    limit: int | None = None
    piece_lines: int = 100_000
    shard_molecules: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("limit", "piece_lines", "shard_molecules", "valid_molecules", "test_molecules"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, found {value}.")
        for name in ("valid_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and less than 1, found {getattr(self, name)}.")
        _ = self.rules, self.shares  # which check their own

    @cached_property
    def rules(self) -> Rules:
        """What becomes of each molecule."""
        return Rules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Rules)})

    @cached_property
    def shares(self) -> Shares:
        """How much the splits get."""
        valid = self.valid_fraction if self.valid_molecules is None else self.valid_molecules
        return Shares(valid=valid, test=self.test_fraction if self.test_molecules is None else self.test_molecules)

    def as_json(self) -> dict[str, Any]:
        """The settings for JSON, which knows no infinity: a limit that is off is null."""
        plain = dataclasses.asdict(self)
        return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in plain.items()}
