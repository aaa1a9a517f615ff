"""SMILES to token ids and back. Lossless; an unknown token is an error, or counted on request."""

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
_ROWS_AT_ONCE = 1024  # their codes stay in the processor's cache
_LARGEST_VOCABULARY = 50_000  # `_CODE_OF_ID_0` + id must stay below the surrogates at 0xD800
_CODE_OF_ID_0 = 0x100
_UNKNOWN_CODE = "\0"
_LINE_END = ord("\n")


class SmilesTokenizer(NemoTokenizerNames):
    """Splits SMILES into tokens and maps them to ids.

    Bracket atoms, `Br`, `Cl`, `%12` and `%(123)` are one token each, any other character is one. Text only ever becomes chemical
    tokens: a `&` in a string is unknown even where `&` is the vocabulary's end-of-sequence token.

    Args:
        vocabulary: None takes the shipped one of 523 tokens.

    Attributes:
        vocabulary: The vocabulary in use.
        unknown_counts: How often each unknown token was mapped to `<UNK>` (`on_unknown="unk"`).
    """

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        self.vocabulary = shipped_vocabulary() if vocabulary is None else vocabulary
        self.unknown_counts: Counter[str] = Counter()
        if len(self.vocabulary) > _LARGEST_VOCABULARY:
            raise DataError(f"the vocabulary has {len(self.vocabulary)} tokens; a SMILES vocabulary may have {_LARGEST_VOCABULARY}")
        tokens = self.vocabulary.tokens
        self._ids = {tokens[i]: int(i) for i in np.flatnonzero(self.vocabulary.is_chemical)}
        self._long_codes = {token: chr(_CODE_OF_ID_0 + i) for token, i in self._ids.items() if len(token) > 1}
        self._id_of_code = np.full(_CODE_OF_ID_0 + len(tokens), -1, dtype=np.int32)
        for token, i in self._ids.items():
            self._id_of_code[ord(token) if len(token) == 1 else _CODE_OF_ID_0 + i] = i

    def tokenize(self, smiles: str) -> list[str]:
        """The tokens of `smiles`, known or not. Lossless: `"".join(tokens) == smiles` for every string."""
        return split(smiles)

    def encode(self, smiles: str, on_unknown: str = "raise") -> list[int]:
        """The ids of the tokens of one SMILES, without `<BOS>` and `<EOS>`.

        Args:
            smiles: The SMILES.
            on_unknown: "raise", or "unk" to map unknown tokens to `<UNK>` and count them in `unknown_counts`.

        Raises:
            InvalidSmilesError: Not text, or empty.
            UnknownTokenError: A token is not in the vocabulary.
        """
        _check_on_unknown(on_unknown)
        return self._encode(smiles, on_unknown, "the SMILES")

    def encode_batch(self, smiles: Sequence[str], on_unknown: str = "raise") -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of many SMILES; as `encode` on each, but many times faster.

        Args:
            smiles: N SMILES, any sequence of text.
            on_unknown: As `encode`.

        Returns:
            All ids in one int32 array, and int64 offsets [N + 1]: the ids of row i are `ids[offsets[i]:offsets[i + 1]]`.

        Raises:
            InvalidSmilesError, UnknownTokenError: As `encode`; the message names the row.
        """
        _check_on_unknown(on_unknown)
        if isinstance(smiles, str):
            raise InvalidSmilesError(f"encode_batch takes many SMILES, found one text, {smiles!r}; pass [smiles], or use encode")
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
        """The SMILES that `ids` (integers, [S]) spell, without `<BOS>` and `<PAD>`, up to `<EOS>`.

        Other special tokens, such as `<UNK>`, appear by name: the result is then not a SMILES, and is seen not to be.

        Raises:
            InvalidShapeError: Not a one-dimensional array of integers.
            UnknownTokenError: An id is outside the vocabulary.
        """
        return self.tokens_to_text(self.ids_to_tokens(ids))

    text_to_tokens, text_to_ids, ids_to_text = tokenize, encode, decode  # NeMo's names

    def save(self, folder: str | Path) -> None:
        """Writes `vocabulary.txt` into `folder`, which is made where it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.vocabulary.save(Path(folder) / _FILE_NAME)

    @classmethod
    def load(cls, folder: str | Path) -> SmilesTokenizer:
        """Reads what `save` wrote.

        Raises:
            DataError: The folder holds no sound `vocabulary.txt`.
        """
        return cls(Vocabulary.load(Path(folder) / _FILE_NAME))

    def _encode(self, smiles: str, on_unknown: str, name: str) -> list[int]:
        """`encode`; errors call the SMILES `name`."""
        if not isinstance(smiles, str):
            raise InvalidSmilesError(f"{name} must be text, found {smiles!r} ({type(smiles).__name__}); leave it out or repair it")
        if not smiles:
            raise InvalidSmilesError(f"{name} is empty; leave it out or repair it")
        tokens = split(smiles)
        unknown = [i for i, token in enumerate(tokens) if token not in self._ids]
        if unknown and on_unknown == "raise":
            first = unknown[0]
            place = len("".join(tokens[:first]))
            raise UnknownTokenError(
                f"{name} ({smiles!r}) holds the token {tokens[first]!r} at character {place}, which is not in the vocabulary of "
                f'{len(self.vocabulary)} tokens. Pass on_unknown="unk" to map it to {self.vocabulary.tokens[self.unk_id]}'
            )
        self.unknown_counts.update(tokens[i] for i in unknown)
        return [self._ids.get(token, self.unk_id) for token in tokens]

    def _encode_each(self, rows: list[str], start: int, on_unknown: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Flat ids and the length of each row, one row after the other. `start` is the index of the first row."""
        encoded = [self._encode(row, on_unknown, f"SMILES at index {start + i}") for i, row in enumerate(rows)]
        flat = np.array([i for ids in encoded for i in ids], dtype=np.int32)
        return flat, np.array([len(ids) for ids in encoded], dtype=np.int64)

    def _encode_joined(self, rows: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
        """As `_encode_each`, on all rows at once; None if any row is not text, empty, not ASCII, or holds an unknown token.

        Each long token is replaced by one character above ASCII that stands for its id: brackets first, halogens in what is left.
        Then every character is one token, and a table turns characters into ids.
        """
        try:
            text = "\n".join([*rows, ""])
        except TypeError:
            return None
        if not text.isascii():
            return None
        pieces = (LONG_TOKEN if "%" in text else BRACKET).split(text)  # every second piece is a long token
        pieces[1::2] = [self._long_codes.get(token, _UNKNOWN_CODE) for token in pieces[1::2]]
        text = "".join(pieces)
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
