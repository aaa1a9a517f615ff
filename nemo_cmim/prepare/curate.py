"""Decides about molecules, each on its own: canonical SMILES, filters, tokens. Pure functions that know no files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import molecules
from ..errors import ConfigError, InvalidSmilesError
from ..tokenizers import SmilesTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NOT_A_MOLECULE", "UNKNOWN_TOKEN", "Curated", "Rejection", "Rules", "canonicalise", "curate", "digest_of"]

NOT_A_MOLECULE = "not a molecule to RDKit"
UNKNOWN_TOKEN = "unknown token"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is made of a molecule, and the limits it must keep to; the defaults are the paper's (Sec. D.2).

    An infinite weight or logP limits nothing.

    Attributes:
        max_molecular_weight: Da, average.
        max_logp: Crippen.
        max_tokens: of the canonical SMILES.
        desalt: Keep the largest fragment only.
        neutralise: Add and remove protons so that no charge is left that can go.
    """

    max_molecular_weight: float = 500.0
    max_logp: float = 5.0
    max_tokens: int = 511
    desalt: bool = False
    neutralise: bool = False

    def __post_init__(self) -> None:
        if not self.max_molecular_weight > 0:
            raise ConfigError(f"max_molecular_weight must be positive, found {self.max_molecular_weight}.")
        if math.isnan(self.max_logp):
            raise ConfigError("max_logp must be a number, found nan.")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, found {self.max_tokens}.")

    def settles_logp(self, logp: tuple[float, float]) -> bool:
        """Whether a molecule of a tranche with these limits of logP need not be asked for its own.

        ZINC's letters are Crippen's logP to rounding, but for the last bin below 5, of which 0.2 % are above.
        """
        return logp[1] < self.max_logp and not (self.desalt or self.neutralise)


class Rejection(NamedTuple):
    """Why a line is not kept: a reason that can be counted, and what was found."""

    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.found}" if self.found else self.reason


class Curated(NamedTuple):
    """What became of N molecules.

    Attributes:
        kept: int64 [M], places in the input, ascending.
        digests: uint64 [M, 2], 128-bit BLAKE2b of the canonical SMILES: equal for equal molecules only, and the same everywhere.
        tokens: the ids of the canonical SMILES of all that are kept, one after the other, without special tokens.
        lengths: int64 [M], how many ids each has.
        rejected: place in the input and reason of the others.
    """

    kept: NDArray[np.int64]
    digests: NDArray[np.uint64]
    tokens: NDArray[np.int32]
    lengths: NDArray[np.int64]
    rejected: dict[int, Rejection]


def curate(smiles: Sequence[str], rules: Rules, tokenizer: SmilesTokenizer, *, logp_is_settled: bool = False) -> Curated:
    """Canonicalises, filters and tokenises SMILES. What becomes of each depends on it alone; the first failed test is the reason.

    Args:
        smiles: N SMILES.
        rules: What to do.
        tokenizer: Its vocabulary must hold every token.
        logp_is_settled: Each is known to be within the limit of logP, which costs more than the rest.
    """
    with molecules.quiet_rdkit():
        outcomes = [canonicalise(one, rules, logp_is_settled=logp_is_settled) for one in smiles]
    rejected = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, Rejection)}
    canonical = [outcome for outcome in outcomes if isinstance(outcome, str)]
    places = np.array([place for place in range(len(outcomes)) if place not in rejected], dtype=np.int64)
    tokens, offsets = tokenizer.encode_batch(canonical, on_unknown="unk")
    lengths = np.diff(offsets)

    rows = np.repeat(np.arange(len(canonical)), lengths)
    is_bad = np.zeros(len(canonical), dtype=bool)
    is_bad[rows[tokens == tokenizer.vocabulary.unk_id]] = True
    is_bad |= lengths > rules.max_tokens
    for row in np.flatnonzero(is_bad).tolist():
        rejected[int(places[row])] = _refusal(canonical[row], rules, tokenizer)
    digests = b"".join(map(digest_of, canonical))
    good = ~is_bad
    return Curated(places[good], np.frombuffer(digests, "<u8").reshape(-1, 2)[good], tokens[good[rows]], lengths[good], rejected)


def digest_of(canonical: str) -> bytes:
    """The 128-bit BLAKE2b of a canonical SMILES: two little-endian 64-bit numbers, by which, in this order, molecules are sorted."""
    return hashlib.blake2b(canonical.encode(), digest_size=16).digest()


def canonicalise(smiles: str, rules: Rules, *, logp_is_settled: bool = False) -> str | Rejection:
    """The canonical SMILES of a molecule within the limits of weight and logP. RDKit prints unless `quiet_rdkit` is held."""
    try:
        mol = molecules.parse(smiles, quiet=False)
    except InvalidSmilesError:
        return Rejection(NOT_A_MOLECULE)
    if rules.desalt or rules.neutralise:
        try:
            mol = molecules.standardise(mol, desalt=rules.desalt, neutralise=rules.neutralise)
        except InvalidSmilesError as error:
            return Rejection("cannot be standardised", str(error))
    if rules.max_molecular_weight != math.inf and (weight := molecules.molecular_weight(mol)) > rules.max_molecular_weight:
        return Rejection(f"molecular weight above {rules.max_molecular_weight:g}", f"{weight:.2f}")
    if not logp_is_settled and rules.max_logp != math.inf and (logp := molecules.logp(mol)) > rules.max_logp:
        return Rejection(f"logP above {rules.max_logp:g}", f"{logp:.3f}")
    return molecules.spelling(mol)


def _refusal(smiles: str, rules: Rules, tokenizer: SmilesTokenizer) -> Rejection:
    tokens = tokenizer.tokenize(smiles)
    unknown = [
        token for token, known in zip(tokens, tokenizer.encode(smiles, on_unknown="unk")) if known == tokenizer.vocabulary.unk_id
    ]
    if unknown:
        return Rejection(UNKNOWN_TOKEN, " ".join(dict.fromkeys(unknown)))
    return Rejection(f"more than {rules.max_tokens} tokens", str(len(tokens)))
