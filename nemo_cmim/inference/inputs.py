"""Converts the molecules that callers pass to token ids; each row is either tokenized or reported as invalid."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, InvalidSmilesError, UnknownTokenError
from ..molecules import Mol, canonical_smiles, parse
from ..tokenizers import SmilesTokenizer

__all__ = ["EXPLAIN", "TokenizedMolecules", "invalid_reason", "tokenize"]

EXPLAIN = "explain"
"""The choice of `on_invalid` for callers that report invalid rows themselves."""


class TokenizedMolecules(NamedTuple):
    """Distinct molecules of N rows.

    Attributes:
        tokens: Ids of each distinct molecule, without special tokens.
        molecule_of_row: int64 [N], index into `tokens`; -1 for an invalid row.
        invalid: Why a row is invalid, by its index.
    """

    tokens: list[list[int]]
    molecule_of_row: NDArray[np.int64]
    invalid: dict[int, str]


def tokenize(
    molecules: Any,
    tokenizer: SmilesTokenizer,
    *,
    max_tokens: int,
    canonical: bool,
    on_invalid: str,
    first_index: int = 0,
    hint: str = ".",
) -> TokenizedMolecules:
    """Canonicalises and tokenizes molecules; equal molecules are kept once.

    Args:
        molecules: A sequence of SMILES or RDKit molecules: list, tuple, NumPy array, pandas or polars Series.
        tokenizer: Tokenizer of the model.
        max_tokens: Maximum number of tokens of a SMILES.
        canonical: Convert each SMILES to RDKit's canonical SMILES first.
        on_invalid: "raise", "nan" to mark rows that cannot be used and to issue one warning for all of them, or `EXPLAIN` to mark
            them without a warning.
        first_index: Index of the first row in error messages.
        hint: End of an error message: how the caller can fix the error.

    Raises:
        InvalidSmilesError: If there are no molecules, or if a row cannot be used and `on_invalid="raise"`.
        ConfigError: If `on_invalid` is neither "raise" nor "nan".
    """
    if on_invalid not in ("raise", "nan", EXPLAIN):
        raise ConfigError(f'on_invalid must be "raise" or "nan", found {on_invalid!r}.')
    rows = _rows(molecules)
    tokens: list[list[int]] = []
    index_of: dict[str, int] = {}
    molecule_of_row = np.empty(len(rows), dtype=np.int64)
    invalid: dict[int, str] = {}
    for i, row in enumerate(rows):
        name = "the SMILES" if on_invalid == EXPLAIN else f"SMILES at index {first_index + i}"
        try:
            smiles = _smiles(row, canonical, name)
            if smiles not in index_of:
                tokens.append(_encode(smiles, tokenizer, max_tokens, name))
                index_of[smiles] = len(tokens) - 1
            molecule_of_row[i] = index_of[smiles]
        except InvalidSmilesError as error:
            if on_invalid == "raise":
                raise type(error)(f"{error}{hint}") from error
            invalid[i] = str(error)
            molecule_of_row[i] = -1
    if invalid and on_invalid == "nan":
        first = next(iter(invalid.values()))
        warnings.warn(f"{len(invalid)} of {len(rows)} molecules are invalid; their rows are NaN. The first: {first}.", stacklevel=4)
    return TokenizedMolecules(tokens, molecule_of_row, invalid)


def invalid_reason(molecule: Any, tokenizer: SmilesTokenizer, max_tokens: int) -> str | None:
    """Why a model with this tokenizer and maximum length cannot use a molecule; None if it can."""
    try:
        _encode(_smiles(molecule, True, "the SMILES"), tokenizer, max_tokens, "the SMILES")
    except InvalidSmilesError as error:
        return str(error)
    return None


def _rows(molecules: Any) -> list[Any]:
    if isinstance(molecules, (str, bytes, Mol)):
        raise InvalidSmilesError(
            f"Molecules must be passed as a sequence, found the single value {_shorten(molecules)}. Pass [value]."
        )
    if not isinstance(molecules, Iterable):
        raise InvalidSmilesError(
            f"Molecules must be passed as a sequence of SMILES, found {molecules!r} ({type(molecules).__name__})."
        )
    if getattr(molecules, "ndim", 1) != 1:
        raise InvalidSmilesError(f"Molecules must be passed as one column of SMILES, found an array of shape {molecules.shape}.")  # type: ignore[attr-defined]
    rows = list(molecules)
    if not rows:
        raise InvalidSmilesError("There are no molecules: the sequence is empty. Pass at least one SMILES.")
    return rows


def _smiles(row: Any, canonical: bool, name: str) -> str:
    if canonical or isinstance(row, Mol):
        return canonical_smiles(row, name=name)
    if not isinstance(row, str) or not row:
        parse(row, name=name)  # raises the error that describes the row
    return row


def _encode(smiles: str, tokenizer: SmilesTokenizer, max_tokens: int, name: str) -> list[int]:
    try:
        ids = tokenizer.encode(smiles)
    except UnknownTokenError as error:
        known = set(tokenizer.vocabulary.tokens)
        unknown = next(token for token in tokenizer.tokenize(smiles) if token not in known)
        raise UnknownTokenError(
            f"{name} ({smiles!r}) contains the token {unknown!r}, which is not in the vocabulary of this model"
        ) from error
    if len(ids) > max_tokens:
        raise InvalidSmilesError(f"{name} ({_shorten(smiles)}) has {len(ids)} tokens, but this model accepts at most {max_tokens}")
    return ids


def _shorten(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
