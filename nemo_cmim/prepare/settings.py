"""The settings of `prepare` that decide what is in the folder that it writes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..config import check
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
        valid_fraction: Expected share of the validation split; by default the paper's. The split of a molecule then depends on its
            canonical SMILES only.
        test_fraction: Expected share of the test split; by default the paper's.
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
    valid_fraction: float | None = None
    test_fraction: float | None = None
    valid_molecules: int | None = None
    test_molecules: int | None = None
    limit: int | None = None
    piece_lines: int = 100_000
    shard_molecules: int = 1_000_000

    def __post_init__(self) -> None:
        for name, least in (
            ("limit", 1),
            ("piece_lines", 1),
            ("shard_molecules", 1),
            ("valid_molecules", 0),
            ("test_molecules", 0),
        ):
            value = getattr(self, name)
            check(value is None or value >= least, f"{name} must be at least {least}, found {value}.")
        for split in ("valid", "test"):
            fraction, molecules = getattr(self, f"{split}_fraction"), getattr(self, f"{split}_molecules")
            twice = f"{split}_fraction={fraction} and {split}_molecules={molecules} say the same thing twice: give one."
            check(fraction is None or molecules is None, twice)
            in_range = fraction is None or 0 <= fraction < 1
            check(in_range, f"{split}_fraction must be at least 0 and less than 1, found {fraction}.")
        _ = self.rules, self.shares  # which check their own

    @cached_property
    def rules(self) -> Rules:
        """What becomes of each molecule."""
        return Rules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Rules)})

    @cached_property
    def shares(self) -> Shares:
        """How much the splits get."""
        return Shares(
            valid=_first(self.valid_molecules, self.valid_fraction, PAPER_VALID),
            test=_first(self.test_molecules, self.test_fraction, PAPER_TEST),
        )

    def as_json(self) -> dict[str, Any]:
        """The settings for JSON, which knows no infinity: a limit that is off is null. Shares are those in use."""
        plain = dataclasses.asdict(self)
        for split, share in (("valid", self.shares.valid), ("test", self.shares.test)):
            if plain[f"{split}_molecules"] is None:
                plain[f"{split}_fraction"] = share
        return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in plain.items()}


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
