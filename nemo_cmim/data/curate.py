"""Decides about molecules, each on its own: canonical SMILES, filters, tokens, split. Pure functions that know no files."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .. import molecules
from ..errors import ConfigError, InvalidSmilesError
from ..tokenizers import SmilesTokenizer

__all__ = ["UNKNOWN_TOKEN", "Filters", "Fractions", "Molecule", "Rejection", "canonicalise", "curate", "tokenise"]

UNKNOWN_TOKEN = "unknown token"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Limits that a molecule must keep to; the defaults are the paper's (Sec. D.2). An infinite weight or logP limits nothing."""

    max_molecular_weight: float = 500.0  # Da, average
    max_logp: float = 5.0  # Crippen
    max_tokens: int = 511

    def __post_init__(self) -> None:
        if not self.max_molecular_weight > 0:
            raise ConfigError(f"max_molecular_weight must be positive, found {self.max_molecular_weight}.")
        if math.isnan(self.max_logp):
            raise ConfigError("max_logp must be a number, found nan.")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, found {self.max_tokens}.")


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """Expected shares of the validation and test split; the rest is for training."""

    valid: float = 0.01
    test: float = 0.01

    def __post_init__(self) -> None:
        if not (self.valid >= 0 and self.test >= 0 and self.valid + self.test < 1):
            raise ConfigError(
                f"valid_fraction and test_fraction must be at least 0 and less than 1 together, found {self.valid} and {self.test}."
            )

    def split_of(self, digest: bytes) -> str:
        """`train`, `valid` or `test`, by the molecule alone.

        Test molecules are taken from the low end of the hash and validation molecules from the high end, so changing one
        fraction moves no molecule between the other split and training.
        """
        place = (int.from_bytes(digest[:8], "little") >> 11) / 2**53  # uniform in [0, 1)
        if place < self.test:
            return "test"
        return "valid" if place >= 1 - self.valid else "train"


class Molecule(NamedTuple):
    """A molecule to keep.

    Attributes:
        digest: 128-bit BLAKE2b of its canonical SMILES: equal for equal molecules only, and the same everywhere.
        tokens: ids of its canonical SMILES, without special tokens.
    """

    digest: bytes
    tokens: list[int]


class Rejection(NamedTuple):
    """Why a line is not kept: a reason that can be counted, and what was found."""

    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.found}" if self.found else self.reason


def curate(smiles: Sequence[str], filters: Filters, tokenizer: SmilesTokenizer) -> list[Molecule | Rejection]:
    """Canonicalises, filters and tokenises SMILES. The outcome of each depends on it alone; the first failed test is the reason."""
    with molecules.quiet_rdkit():
        outcomes = [canonicalise(one, filters) for one in smiles]
    canonical = [outcome for outcome in outcomes if isinstance(outcome, str)]
    tokenised = iter(tokenise(canonical, filters, tokenizer))
    return [next(tokenised) if isinstance(outcome, str) else outcome for outcome in outcomes]


def canonicalise(smiles: str, filters: Filters) -> str | Rejection:
    """The canonical SMILES of a molecule within the limits of weight and logP. RDKit prints unless `quiet_rdkit` is held."""
    try:
        mol = molecules.parse(smiles, quiet=False)
    except InvalidSmilesError:
        return Rejection("not a molecule to RDKit")
    if filters.max_molecular_weight != math.inf and (weight := molecules.molecular_weight(mol)) > filters.max_molecular_weight:
        return Rejection(f"molecular weight above {filters.max_molecular_weight:g}", f"{weight:.2f}")
    if filters.max_logp != math.inf and (logp := molecules.logp(mol)) > filters.max_logp:
        return Rejection(f"logP above {filters.max_logp:g}", f"{logp:.3f}")
    return molecules.canonical_smiles(mol)


def tokenise(canonical: Sequence[str], filters: Filters, tokenizer: SmilesTokenizer) -> list[Molecule | Rejection]:
    """The tokens of canonical SMILES that are not too long and have no unknown token."""
    flat, offsets = tokenizer.encode_batch(canonical, on_unknown="unk")
    ids, ends = flat.tolist(), offsets.tolist()
    rows = (ids[start:end] for start, end in itertools.pairwise(ends))
    return [_tokenised(smiles, tokens, filters, tokenizer) for smiles, tokens in zip(canonical, rows)]


def _tokenised(smiles: str, tokens: list[int], filters: Filters, tokenizer: SmilesTokenizer) -> Molecule | Rejection:
    if tokenizer.vocabulary.unk_id in tokens:
        unknown = [token for token, i in zip(tokenizer.tokenize(smiles), tokens) if i == tokenizer.vocabulary.unk_id]
        return Rejection(UNKNOWN_TOKEN, " ".join(dict.fromkeys(unknown)))
    if len(tokens) > filters.max_tokens:
        return Rejection(f"more than {filters.max_tokens} tokens", str(len(tokens)))
    return Molecule(hashlib.blake2b(smiles.encode(), digest_size=16).digest(), tokens)
