"""The settings of `prepare` that determine the contents of the folder it writes. Imports neither NumPy nor RDKit."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..mappings import check
from ..steps import STEPS, field_of
from ..tables.layout import ReadOptions

__all__ = ["PAPER_TEST", "PAPER_VALID", "STANDARD_PROPERTIES", "Rules", "Settings", "SplitSizes"]

PAPER_VALID = 100_000 / 730_000_000  # Sec. D.2: of 730M molecules 100k for validation
PAPER_TEST = 7_000_000 / 730_000_000  # and 7M for test

STANDARD_PROPERTIES = (
    *("MolWt", "MolLogP", "MolMR", "TPSA", "LabuteASA", "HeavyAtomCount", "FractionCSP3"),
    *("NumHAcceptors", "NumHDonors", "NHOHCount", "NOCount", "NumHeteroatoms", "NumRotatableBonds", "NumAmideBonds"),
    *("RingCount", "NumAliphaticRings", "NumAromaticRings", "NumSaturatedRings", "NumHeterocycles", "NumBridgeheadAtoms"),
    *("NumAliphaticCarbocycles", "NumAromaticCarbocycles", "NumSaturatedCarbocycles", "NumSpiroAtoms", "NumAtomStereoCenters"),
    *("NumAliphaticHeterocycles", "NumAromaticHeterocycles", "NumSaturatedHeterocycles"),
    *("MaxPartialCharge", "MinPartialCharge", "HallKierAlpha", "Kappa1", "Kappa2"),
    *("Chi0n", "Chi0v", "Chi1n", "Chi1v", "Chi2n", "Chi2v"),
    *(f"SlogP_VSA{i}" for i in range(1, 13)),
    *(f"SMR_VSA{i}" for i in range(1, 11)),
    *(f"PEOE_VSA{i}" for i in range(1, 15)),
)
"""RDKit's 2D descriptors that are fast to compute and not zero for almost all molecules."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How molecules are standardised, and which of them are kept. The defaults are the paper's (Sec. D.2).

    An infinite weight or logP disables that limit.

    Attributes:
        max_molecular_weight: Largest average molecular weight, Da.
        max_logp: Largest Crippen logP.
        max_tokens: Largest number of tokens of the canonical SMILES.
        extras: Remove a CXSMILES extension or a name that follows a SMILES; see `molecules.standard_smiles` for this and the next three.
        atom_maps: Remove the numbers of atoms of a reaction.
        desalt: Keep only the largest fragment.
        neutralise: Remove charges by adding or removing protons, where possible.

    Raises:
        ConfigError: If a limit is out of range.
    """

    max_molecular_weight: float = 500.0
    max_logp: float = 5.0
    max_tokens: int = 511
    extras: bool = False
    atom_maps: bool = False
    desalt: bool = False
    neutralise: bool = False

    def __post_init__(self) -> None:
        check(self.max_molecular_weight > 0, f"max_molecular_weight must be positive, found {self.max_molecular_weight}.")
        check(not math.isnan(self.max_logp), "max_logp must be a number, found nan.")
        check(self.max_tokens >= 1, f"max_tokens must be at least 1, found {self.max_tokens}.")

    def logp_is_known(self, logp: tuple[float, float]) -> bool:
        """Whether molecules of a tranche with this range of logP pass the limit of logP, so that it need not be computed.

        ZINC's letters are Crippen's logP up to rounding, except in the last bin below 5, where 0.2 % of the molecules are above it.
        """
        return logp[1] < self.max_logp and not (self.desalt or self.neutralise)


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Sizes of the validation and the test split. All other molecules are for training.

    Attributes:
        valid: Below 1: the expected fraction of the molecules. From 1 on: the exact number of molecules.
        test: See `valid`.

    Raises:
        ConfigError: If a size is out of range, or the fractions leave no molecules for training.
    """

    valid: float = PAPER_VALID
    test: float = PAPER_TEST

    def __post_init__(self) -> None:
        for name, size in (("validation", self.valid), ("test", self.test)):
            check(
                0 <= size < math.inf and (size < 1 or size == int(size)),
                f"The size of the {name} split must be a fraction below 1 or a number of molecules, found {size}.",
            )
        check(
            sum(size for size in (self.valid, self.test) if size < 1) < 1,
            f"The fractions of the validation split ({self.valid}) and the test split ({self.test}) leave no molecules for training. "
            "Lower one of them.",
        )

    @property
    def are_exact(self) -> bool:
        """Whether a split has an exact number of molecules, so that the split of a molecule depends on the other molecules."""
        return max(self.valid, self.test) >= 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of `prepare`. Equal inputs and settings give equal bytes, however many machines do the work.

    Attributes:
        column: See `ReadOptions.smiles`.
        delimiter: See `ReadOptions`.
        header: See `ReadOptions`.
        max_molecular_weight: See `Rules`; likewise the next six.
        max_logp: See `Rules`.
        max_tokens: See `Rules`.
        extras: See `Rules`.
        atom_maps: See `Rules`.
        desalt: See `Rules`.
        neutralise: See `Rules`.
        properties: Observed properties to compute: "none", "standard" (see `STANDARD_PROPERTIES`), or names of
            `rdkit.Chem.Descriptors`, separated by commas.
        fingerprint_bits: Number of bits of the Morgan fingerprint (radius 2) to compute, a multiple of 8; 0: none.
        trust_tranches: Do not compute logP in a file named after a ZINC tranche whose letter puts logP below the limit.
        valid_fraction: Expected fraction of the molecules in the validation split; by default the paper's. The split of a molecule
            then depends on its canonical SMILES only.
        test_fraction: Expected fraction of the molecules in the test split; by default the paper's.
        valid_molecules: Exact size of the validation split, instead of its fraction.
        test_molecules: Exact size of the test split, instead of its fraction.
        limit: Maximum number of lines to read from all inputs together.
        piece_lines: Number of lines in a chunk, which one task curates.
        shard_molecules: Approximate number of molecules in a shard.

    Raises:
        ConfigError: If a setting is out of range.
    """

    column: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    max_molecular_weight: float = Rules.max_molecular_weight
    max_logp: float = Rules.max_logp
    max_tokens: int = Rules.max_tokens
    extras: bool = Rules.extras
    atom_maps: bool = Rules.atom_maps
    desalt: bool = Rules.desalt
    neutralise: bool = Rules.neutralise
    properties: str = "none"
    fingerprint_bits: int = 0
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
            ("fingerprint_bits", 0),
        ):
            value = getattr(self, name)
            check(value is None or value >= least, f"{name} must be at least {least}, found {value}.")
        check(self.fingerprint_bits % 8 == 0, f"fingerprint_bits must be a multiple of 8, found {self.fingerprint_bits}.")
        for split in ("valid", "test"):
            fraction, molecules = getattr(self, f"{split}_fraction"), getattr(self, f"{split}_molecules")
            both = f"{split}_fraction={fraction} and {split}_molecules={molecules} are both set. Set only one of them."
            check(fraction is None or molecules is None, both)
            in_range = fraction is None or 0 <= fraction < 1
            check(in_range, f"{split}_fraction must be at least 0 and less than 1, found {fraction}.")
        _ = self.rules, self.split_sizes  # each checks its own values

    @cached_property
    def rules(self) -> Rules:
        """How molecules are standardised and filtered."""
        return Rules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Rules)})

    @property
    def read_options(self) -> ReadOptions:
        """How the inputs are read."""
        steps = tuple(step for step in STEPS if getattr(self, field_of(step)))
        return ReadOptions(self.column, self.delimiter, self.header, steps)

    @cached_property
    def property_names(self) -> tuple[str, ...]:
        """Names of the observed properties."""
        if self.properties == "none":
            return ()
        return STANDARD_PROPERTIES if self.properties == "standard" else tuple(name.strip() for name in self.properties.split(","))

    @property
    def has_properties(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.property_names or self.fingerprint_bits)

    @cached_property
    def split_sizes(self) -> SplitSizes:
        """Sizes of the validation and the test split."""
        return SplitSizes(
            valid=_first(self.valid_molecules, self.valid_fraction, PAPER_VALID),
            test=_first(self.test_molecules, self.test_fraction, PAPER_TEST),
        )

    def as_json(self) -> dict[str, Any]:
        """The settings for JSON, which has no infinity: a disabled limit is null. Default fractions are written out."""
        plain = dataclasses.asdict(self)
        for split, size in (("valid", self.split_sizes.valid), ("test", self.split_sizes.test)):
            if plain[f"{split}_molecules"] is None:
                plain[f"{split}_fraction"] = size
        return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in plain.items()}


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
