"""Curates molecules one by one: standardises, canonicalises, filters and tokenizes them. Pure functions without files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import molecules
from ..errors import InvalidSmilesError
from ..tokenizers import SmilesTokenizer
from .settings import Rules

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORBIDDEN_CHARACTER",
    "NOT_A_MOLECULE",
    "UNKNOWN_TOKEN",
    "Curated",
    "Rejection",
    "canonicalise",
    "curate",
    "digest_of",
    "reason_of",
]

FORBIDDEN_CHARACTER = "forbidden character"
NOT_A_MOLECULE = "not a molecule to RDKit"
ATOM_MAPS = "atom maps"
QUERY = "a query, which stands for many molecules"
UNKNOWN_TOKEN = "unknown token"


class Rejection(NamedTuple):
    """Why a line is rejected.

    Attributes:
        reason: The reason, which lines are counted by.
        found: The value found, or empty.
    """

    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.found}" if self.found else self.reason


class Curated(NamedTuple):
    """The result of curating N molecules, of which M are kept.

    Attributes:
        kept: int64 [M], indices in the input, ascending.
        digests: uint64 [M, 2], 128-bit BLAKE2b of the canonical SMILES: equal for equal molecules only, on every machine.
        tokens: Token ids of the canonical SMILES of the kept molecules, concatenated, without special tokens.
        lengths: int64 [M], number of token ids of each molecule.
        rejected: Why the others are rejected, by index in the input.
    """

    kept: NDArray[np.int64]
    digests: NDArray[np.uint64]
    tokens: NDArray[np.int32]
    lengths: NDArray[np.int64]
    rejected: dict[int, Rejection]


def curate(smiles: Sequence[str], rules: Rules, tokenizer: SmilesTokenizer, *, logp_is_known: bool = False) -> Curated:
    """Canonicalises, filters and tokenizes SMILES, each independently of the others. The first test that fails is the reason.

    Args:
        smiles: N SMILES.
        rules: How to standardise and filter them.
        tokenizer: Molecules with a token outside its vocabulary are rejected.
        logp_is_known: All molecules are known to be within the limit of logP. It is then not computed, which is the slowest test.
    """
    with molecules.quiet_rdkit():
        outcomes = [canonicalise(one, rules, logp_is_known=logp_is_known) for one in smiles]
    rejected = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Rejection)}
    canonical = [outcome for outcome in outcomes if isinstance(outcome, str)]
    indices = np.array([index for index in range(len(outcomes)) if index not in rejected], dtype=np.int64)
    tokens, offsets = tokenizer.encode_batch(canonical, on_unknown="unk")
    lengths = np.diff(offsets)

    rows = np.repeat(np.arange(len(canonical)), lengths)
    is_bad = np.zeros(len(canonical), dtype=bool)
    is_bad[rows[tokens == tokenizer.vocabulary.unk_id]] = True
    is_bad |= lengths > rules.max_tokens
    for row in np.flatnonzero(is_bad).tolist():
        rejected[int(indices[row])] = _token_rejection(canonical[row], rules, tokenizer)
    digests = b"".join(map(digest_of, canonical))
    good = ~is_bad
    return Curated(indices[good], np.frombuffer(digests, "<u8").reshape(-1, 2)[good], tokens[good[rows]], lengths[good], rejected)


def reason_of(rejection: str) -> str:
    """The reason, which lines are counted by, of a rejection as text, or of a problem of a line: what stands before ": "."""
    return rejection.partition(": ")[0]


def digest_of(canonical: str) -> bytes:
    """The 128-bit BLAKE2b of a canonical SMILES: two little-endian 64-bit numbers. Molecules are sorted by the first, then the second."""
    return hashlib.blake2b(canonical.encode(), digest_size=16).digest()


def canonicalise(smiles: str, rules: Rules, *, logp_is_known: bool = False) -> str | Rejection:
    """The canonical SMILES of a molecule, or why it is rejected. RDKit prints its messages unless called under `quiet_rdkit`."""
    text = molecules.without_extras(smiles) if rules.extras else smiles
    if found := molecules.forbidden_character(text):
        return Rejection(FORBIDDEN_CHARACTER, found + molecules.what_follows(text, "--standardise extras removes it"))
    try:
        mol = molecules.parse(text, quiet=False)
    except InvalidSmilesError as error:
        return Rejection(NOT_A_MOLECULE, str(error).partition("could not be parsed: ")[2])
    if mol.HasQuery():
        return Rejection(QUERY)
    is_changed = rules.desalt or rules.neutralise or rules.atom_maps
    if is_changed:
        try:
            mol = molecules.standardise(mol, desalt=rules.desalt, neutralise=rules.neutralise, atom_maps=rules.atom_maps)
        except InvalidSmilesError as error:
            return Rejection("cannot be standardised", str(error))
    if rules.max_molecular_weight != math.inf and (weight := molecules.molecular_weight(mol)) > rules.max_molecular_weight:
        return Rejection(f"molecular weight above {rules.max_molecular_weight:g}", f"{weight:.2f}")
    if not logp_is_known and rules.max_logp != math.inf and (logp := molecules.logp(mol)) > rules.max_logp:
        return Rejection(f"logP above {rules.max_logp:g}", f"{logp:.3f}")
    canonical = molecules.to_canonical_smiles(mol, None if is_changed else text)
    if found := molecules.atom_map(canonical):
        return Rejection(ATOM_MAPS, f"{found}. --standardise atom-maps removes them")
    return canonical


def _token_rejection(smiles: str, rules: Rules, tokenizer: SmilesTokenizer) -> Rejection:
    tokens = tokenizer.tokenize(smiles)
    unknown = [
        token for token, known in zip(tokens, tokenizer.encode(smiles, on_unknown="unk")) if known == tokenizer.vocabulary.unk_id
    ]
    if unknown:
        return Rejection(UNKNOWN_TOKEN, " ".join(dict.fromkeys(unknown)))
    return Rejection(f"more than {rules.max_tokens} tokens", str(len(tokens)))
