"""The tokens of a model and their ids, as one text file that loads back exactly."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, InvalidShapeError, UnknownTokenError
from .pattern import is_chemical_token, split

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Vocabulary", "shipped_vocabulary"]

_HEADER = "nemo_cmim vocabulary 1"
_SHIPPED = Path(__file__).with_name("smiles_523.vocab.txt")  # importlib.resources takes 20 ms to import
_ROLES = ("pad", "unk", "bos", "eos", "mask", "sep")
_NEMO_TOKENS = {
    "pad": ("<PAD>",),
    "unk": ("?", "<UNK>"),
    "bos": ("^", "<BOS>"),
    "eos": ("&", "<EOS>"),
    "mask": ("<MASK>",),
    "sep": ("<SEP>",),
}
_REGEX_PROBES = (r"F/C=C\F", "[13C@@H](Br)Cl", "C%12CC%12", "C%(101)CC%(101)")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered list of distinct tokens; a token's place is its id. Six ids are special and never stand for chemistry.

    Attributes:
        tokens: The tokens in the order of their ids.
        pad_id, unk_id, bos_id, eos_id, mask_id, sep_id: The special tokens.

    Raises:
        DataError: A token is empty, repeated or holds a line break, or the special ids are not six ids of the vocabulary.
    """

    tokens: tuple[str, ...]
    pad_id: int = 0
    unk_id: int = 1
    bos_id: int = 2
    eos_id: int = 3
    mask_id: int = 4
    sep_id: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        for i, token in enumerate(self.tokens):
            if not isinstance(token, str) or not token or "\n" in token or "\r" in token:
                raise DataError(f"token {i} of the vocabulary is {token!r}; a token is text without line breaks, not empty")
            if self._ids[token] != i:
                raise DataError(f"the vocabulary holds {token!r} twice, as tokens {i} and {self._ids[token]}; remove one")
        special = self.special_ids.values()
        if len(set(special)) < len(_ROLES) or min(special) < 0 or max(special) >= len(self):
            raise DataError(f"the special ids {self.special_ids} must be six different ids below {len(self)}, its size")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def special_ids(self) -> dict[str, int]:
        """The id of each special role: pad, unk, bos, eos, mask, sep."""
        return {role: getattr(self, f"{role}_id") for role in _ROLES}

    def id_of(self, token: str) -> int:
        """The id of any token, special ones included.

        Raises:
            UnknownTokenError: The vocabulary does not hold the token.
        """
        if token not in self._ids:
            raise UnknownTokenError(f"token {token!r} is not in the vocabulary of {len(self)} tokens; see its `tokens`")
        return self._ids[token]

    def check_ids(self, ids: ArrayLike) -> list[int]:
        """`ids` (integers, [S]) as a list.

        Raises:
            InvalidShapeError: Not a one-dimensional array of integers.
            UnknownTokenError: An id is outside the vocabulary.
        """
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InvalidShapeError(f"token ids must be integers [S], found {array.dtype} {list(array.shape)}; pass one sequence")
        outside = np.flatnonzero((array < 0) | (array >= len(self)))
        if outside.size:
            place = outside[0]
            raise UnknownTokenError(
                f"token id {array[place]} at position {place} is not in the vocabulary, whose ids are 0 to {len(self) - 1}; "
                "the ids belong to another vocabulary or to its padding"
            )
        return array.tolist()

    @cached_property
    def is_chemical(self) -> NDArray[np.bool_]:
        """Bool [V], True for tokens that can stand in a SMILES; special, property and unused tokens are False. Read-only."""
        chemical = np.array([is_chemical_token(token) for token in self.tokens], dtype=np.bool_)
        chemical[list(self.special_ids.values())] = False
        chemical.setflags(write=False)
        return chemical

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the ordered tokens and the special ids: equal if and only if the vocabularies are."""
        return hashlib.sha256("\n".join([self._roles_line(), *self.tokens]).encode()).hexdigest()

    def _roles_line(self) -> str:
        return " ".join(f"{role} {i}" for role, i in self.special_ids.items())

    def dumps(self) -> str:
        """The text of `vocabulary.txt`: three header lines, then one token a line in the order of the ids."""
        return "\n".join([_HEADER, f"sha256 {self.fingerprint}", self._roles_line(), *self.tokens, ""])

    @classmethod
    def loads(cls, text: str, source: str = "the text") -> Vocabulary:
        """Reads what `dumps` wrote.

        Args:
            text: The content of a `vocabulary.txt`.
            source: What an error calls it.

        Raises:
            DataError: Not such a text, cut short, or changed by hand.
        """
        lines = text.replace("\r\n", "\n").split("\n")
        if lines[0] != _HEADER:
            raise DataError(
                f"{source} is not a nemo_cmim vocabulary: it begins with {lines[0][:40]!r}, not {_HEADER!r}. "
                "Load the .vocab file of a NeMo or BioNeMo model with Vocabulary.from_nemo"
            )
        roles = re.fullmatch(" ".join(rf"{role} (\d{{1,9}})" for role in _ROLES), lines[2]) if len(lines) > 2 else None
        if roles is None or lines[-1] != "":
            raise DataError(f"{source} is damaged or cut short; write it anew with Vocabulary.save")
        vocabulary = cls(tuple(lines[3:-1]), *map(int, roles.groups()))
        if lines[1] != f"sha256 {vocabulary.fingerprint}":
            raise DataError(
                f"{source} is damaged or was changed by hand: its tokens do not give the checksum of its second line. "
                "Write a changed vocabulary with Vocabulary(tokens).save"
            )
        return vocabulary

    def save(self, path: str | Path) -> None:
        """Writes the vocabulary to `path`, by custom called `vocabulary.txt`."""
        Path(path).write_text(self.dumps(), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            DataError: The file is missing, damaged or of another kind.
        """
        return cls.loads(_read_text(path), source=str(path))

    @classmethod
    def from_nemo(cls, vocab_path: str | Path, model_path: str | Path | None = None) -> Vocabulary:
        """Reads the vocabulary of a NeMo or BioNeMo `RegExTokenizer`.

        The ids are those of the file. SMILES are always split by this package's lossless expression; where the file's own would
        split otherwise, a warning says so.

        Args:
            vocab_path: The `.vocab` file, one token a line.
            model_path: The `.model` file, a regular expression; None checks nothing.

        Raises:
            DataError: A file is missing, damaged, not of this kind, or lacks a special token.
        """
        tokens = [line.strip() for line in _read_text(vocab_path).split("\n") if line.strip()]
        if tokens and tokens[0] == _HEADER:
            raise DataError(f"{vocab_path} is a nemo_cmim vocabulary; read it with Vocabulary.load")
        if len(set(tokens)) < len(tokens) and all(len(token) == 1 for token in tokens):
            raise DataError(
                f"{vocab_path} holds only the first letter of each token, as NeMo's RegExTokenizer.save_tokenizer writes it, and "
                "the tokens cannot be recovered from that. Use the .vocab file that the model was first trained with"
            )
        special = {role: _find_special(tokens, role, vocab_path) for role in _ROLES}
        if model_path is not None:
            _warn_if_split_differs(model_path)
        return cls(tuple(tokens), *special.values())


@cache
def shipped_vocabulary() -> Vocabulary:
    """The vocabulary of 523 tokens that comes with the package, written by `tools/build_vocabulary.py`."""
    return Vocabulary.load(_SHIPPED)


def _read_text(path: str | Path) -> str:
    """The file's text, undecorated by the platform's line ends.

    Raises:
        DataError: Missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror}); pass the path of a vocabulary file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); pass the path of a vocabulary file") from error


def _find_special(tokens: list[str], role: str, path: str | Path) -> int:
    for name in _NEMO_TOKENS[role]:
        if name in tokens:
            return tokens.index(name)
    raise DataError(f"{path} lacks the {role} token: none of its {len(tokens)} lines is {' or '.join(_NEMO_TOKENS[role])}")


def _warn_if_split_differs(model_path: str | Path) -> None:
    """Warns if the expression in the file splits a probe otherwise than `split`.

    Raises:
        DataError: The file does not hold a regular expression.
    """
    text = _read_text(model_path).strip()
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"{model_path} does not hold a regular expression ({error}); pass the tokenizer's .model file") from error
    for probe in _REGEX_PROBES:
        theirs = [match.group() for match in pattern.finditer(probe)]
        if theirs != split(probe):
            warnings.warn(
                f"the expression in {model_path} splits {probe!r} into {theirs}; nemo_cmim keeps its own, which splits it into "
                f"{split(probe)}. A model trained without the difference has not seen these tokens in such SMILES",
                stacklevel=3,
            )
            return
