"""Converts SMILES to token ids and back, without loss. Unknown tokens are errors, or are counted on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, DataError, InvalidSmilesError, UnknownTokenError
from .nemo_names import NemoTokenizerNames
from .pattern import BRACKET, HALOGENS, LONG_TOKEN, split
from .vocabulary import Vocabulary, shipped_vocabulary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SmilesTokenizer"]

_FILE_NAME = "vocabulary.txt"
_ROWS_AT_ONCE = 1024  # so that their codes fit into the processor's cache
_MAX_VOCABULARY = 50_000  # `_CODE_OF_ID_0` + id must stay below the surrogates at 0xD800
_CODE_OF_ID_0 = 0x100
_UNKNOWN_CODE = "\0"
_LINE_END = ord("\n")


class SmilesTokenizer(NemoTokenizerNames):
    """Splits SMILES into tokens and maps them to ids.

    Bracket atoms, `Br`, `Cl`, `%12` and `%(123)` are one token each, as is any other character. Text is only mapped to chemical
    tokens: a `&` in a string is unknown even if `&` is the end-of-sequence token of the vocabulary.

    Args:
        vocabulary: None: the shipped vocabulary of 523 tokens.

    Attributes:
        vocabulary: The vocabulary.
        unknown_counts: Number of times that each unknown token was mapped to `<UNK>` (`on_unknown="unk"`).
    """

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        self.vocabulary = shipped_vocabulary() if vocabulary is None else vocabulary
        self.unknown_counts: Counter[str] = Counter()
        if len(self.vocabulary) > _MAX_VOCABULARY:
            raise DataError(f"the vocabulary has {len(self.vocabulary)} tokens; the maximum is {_MAX_VOCABULARY}")
        tokens = self.vocabulary.tokens
        self._ids = {tokens[i]: int(i) for i in np.flatnonzero(self.vocabulary.is_chemical)}
        self._long_codes = {token: chr(_CODE_OF_ID_0 + i) for token, i in self._ids.items() if len(token) > 1}
        self._id_of_code = np.full(_CODE_OF_ID_0 + len(tokens), -1, dtype=np.int32)
        for token, i in self._ids.items():
            self._id_of_code[ord(token) if len(token) == 1 else _CODE_OF_ID_0 + i] = i

    def tokenize(self, smiles: str) -> list[str]:
        """Splits a SMILES into tokens, known or unknown. Lossless: `"".join(tokens) == smiles` for every string."""
        return split(smiles)

    def encode(self, smiles: str, on_unknown: str = "raise") -> list[int]:
        """Converts one SMILES to token ids, without `<BOS>` and `<EOS>`.

        Args:
            smiles: The SMILES.
            on_unknown: "raise", or "unk" to map unknown tokens to `<UNK>` and count them in `unknown_counts`.

        Raises:
            InvalidSmilesError: If the SMILES is not text or is empty.
            UnknownTokenError: If a token is not in the vocabulary and `on_unknown="raise"`.
            ConfigError: If `on_unknown` is neither "raise" nor "unk".
        """
        _check_on_unknown(on_unknown)
        return self._encode(smiles, on_unknown, "the SMILES")

    def encode_batch(self, smiles: Sequence[str], on_unknown: str = "raise") -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Converts many SMILES to token ids; equal to `encode` on each, but many times faster.

        Args:
            smiles: N SMILES, any sequence of text.
            on_unknown: See `encode`.

        Returns:
            All ids in one int32 array, and int64 offsets [N + 1]: the ids of row i are `ids[offsets[i]:offsets[i + 1]]`.

        Raises:
            InvalidSmilesError, UnknownTokenError, ConfigError: See `encode`; the message contains the index of the row.
        """
        _check_on_unknown(on_unknown)
        if isinstance(smiles, str):
            raise InvalidSmilesError(
                f"encode_batch requires a sequence of SMILES, found the text {smiles!r}; pass [smiles], or use encode"
            )
        rows = list(smiles)
        ids = [np.empty(0, dtype=np.int32)]
        lengths = [np.zeros(1, dtype=np.int64)]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE]
            chunk_ids, chunk_lengths = self._encode_joined(chunk) or self._encode_each(chunk, start, on_unknown)
            ids.append(chunk_ids)
            lengths.append(chunk_lengths)
        return np.concatenate(ids), np.concatenate(lengths).cumsum()

    def decode(self, ids: ArrayLike) -> str:
        """Converts `ids` (integers, [S]) to a SMILES, without `<BOS>` and `<PAD>`, up to `<EOS>`.

        Other special tokens, such as `<UNK>`, appear by name, so that the result is visibly not a SMILES.

        Raises:
            InvalidShapeError: If `ids` is not a one-dimensional array of integers.
            UnknownTokenError: If an id is not in the vocabulary.
        """
        return self.tokens_to_text(self.ids_to_tokens(ids))

    text_to_tokens, text_to_ids, ids_to_text = tokenize, encode, decode  # NeMo's names

    def save(self, folder: str | Path) -> None:
        """Writes `vocabulary.txt` into `folder`, which is created if it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.vocabulary.save(Path(folder) / _FILE_NAME)

    @classmethod
    def load(cls, folder: str | Path) -> SmilesTokenizer:
        """Reads a folder that `save` wrote.

        Raises:
            DataError: If the folder does not contain a valid `vocabulary.txt`.
        """
        return cls(Vocabulary.load(Path(folder) / _FILE_NAME))

    def _encode(self, smiles: str, on_unknown: str, name: str) -> list[int]:
        """See `encode`; `name` is the name of the SMILES in error messages."""
        if not isinstance(smiles, str):
            raise InvalidSmilesError(f"{name} must be text, found {smiles!r} ({type(smiles).__name__}); remove or fix it")
        if not smiles:
            raise InvalidSmilesError(f"{name} is empty; remove or fix it")
        tokens = split(smiles)
        unknown = [i for i, token in enumerate(tokens) if token not in self._ids]
        if unknown and on_unknown == "raise":
            first = unknown[0]
            place = len("".join(tokens[:first]))
            raise UnknownTokenError(
                f"{name} ({smiles!r}) contains the token {tokens[first]!r} at character {place}, which is not in the vocabulary of "
                f'{len(self.vocabulary)} tokens. Pass on_unknown="unk" to map it to {self.vocabulary.tokens[self.unk_id]}'
            )
        self.unknown_counts.update(tokens[i] for i in unknown)
        return [self._ids.get(token, self.unk_id) for token in tokens]

    def _encode_each(self, rows: list[str], start: int, on_unknown: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Concatenated ids and the length of each row; rows are encoded one by one. `start` is the index of the first row."""
        encoded = [self._encode(row, on_unknown, f"SMILES at index {start + i}") for i, row in enumerate(rows)]
        flat = np.array([i for ids in encoded for i in ids], dtype=np.int32)
        return flat, np.array([len(ids) for ids in encoded], dtype=np.int64)

    def _encode_joined(self, rows: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
        """See `_encode_each`; encodes all rows at once. None if a row is not text, is empty, is not ASCII or has an unknown token.

        Each long token is replaced by one character above ASCII that represents its id: first brackets, then halogens in the rest.
        Then every character is one token, and a table maps characters to ids.
        """
        try:
            text = "\n".join([*rows, ""])
        except TypeError:
            return None
        if not text.isascii():
            return None
        parts = (LONG_TOKEN if "%" in text else BRACKET).split(text)  # every second part is a long token
        parts[1::2] = [self._long_codes.get(token, _UNKNOWN_CODE) for token in parts[1::2]]
        text = "".join(parts)
        for halogen in HALOGENS:
            text = text.replace(halogen, self._long_codes.get(halogen, _UNKNOWN_CODE))
        codes = np.frombuffer(text.encode("utf-16-le"), dtype=np.dtype("<u2"))
        is_end = codes == _LINE_END
        ids = self._id_of_code[codes[~is_end]]
        lengths = np.diff(np.flatnonzero(is_end), prepend=-1) - 1
        if len(lengths) != len(rows) or lengths.min() == 0 or ids.min() < 0:
            return None
        return ids, lengths


def _check_on_unknown(on_unknown: str) -> None:
    if on_unknown not in ("raise", "unk"):
        raise ConfigError(f'on_unknown must be "raise" or "unk", found {on_unknown!r}')
