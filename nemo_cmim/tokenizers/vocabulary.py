"""The tokens of a model and their ids, and the text file that stores them."""

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
_SHIPPED = Path(__file__).with_name("smiles_523.vocab.txt")  # importing importlib.resources takes 20 ms
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
    """An ordered list of distinct tokens; the index of a token is its id. Six ids are special and not chemical.

    Attributes:
        tokens: The tokens in the order of their ids.
        pad_id, unk_id, bos_id, eos_id, mask_id, sep_id: The ids of special tokens.

    Raises:
        DataError: If a token is empty, repeated or contains a line break, or if the special ids are not six ids of the vocabulary.
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
                raise DataError(
                    f"token {i} of the vocabulary is {token!r}; a token must be text, not empty and without line breaks"
                )
            if self._ids[token] != i:
                raise DataError(f"the vocabulary contains {token!r} twice, as tokens {i} and {self._ids[token]}; remove one")
        special = self.special_ids.values()
        if len(set(special)) < len(_ROLES) or min(special) < 0 or max(special) >= len(self):
            raise DataError(
                f"the special ids {self.special_ids} must be six distinct ids below {len(self)}, the size of the vocabulary"
            )

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
        """The id of a token, which may be a special token.

        Raises:
            UnknownTokenError: If the token is not in the vocabulary.
        """
        if token not in self._ids:
            raise UnknownTokenError(f"token {token!r} is not in the vocabulary of {len(self)} tokens; see its `tokens`")
        return self._ids[token]

    def check_ids(self, ids: ArrayLike) -> list[int]:
        """Checks `ids` (integers, [S]) and returns them as a list.

        Raises:
            InvalidShapeError: If `ids` is not a one-dimensional array of integers.
            UnknownTokenError: If an id is not in the vocabulary.
        """
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InvalidShapeError(f"token ids must be integers [S], found {array.dtype} {list(array.shape)}; pass one sequence")
        outside = np.flatnonzero((array < 0) | (array >= len(self)))
        if outside.size:
            place = outside[0]
            raise UnknownTokenError(
                f"token id {array[place]} at position {place} is not in the vocabulary, whose ids are 0 to {len(self) - 1}; "
                "the ids belong to a different vocabulary, or to the padding of the vocabulary"
            )
        return array.tolist()

    @cached_property
    def is_chemical(self) -> NDArray[np.bool_]:
        """Bool [V], True for tokens that can occur in a SMILES; False for special, property and unused tokens. Read-only."""
        chemical = np.array([is_chemical_token(token) for token in self.tokens], dtype=np.bool_)
        chemical[list(self.special_ids.values())] = False
        chemical.setflags(write=False)
        return chemical

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the ordered tokens and the special ids: equal if and only if the vocabularies are equal."""
        return hashlib.sha256("\n".join([self._roles_line(), *self.tokens]).encode()).hexdigest()

    def _roles_line(self) -> str:
        return " ".join(f"{role} {i}" for role, i in self.special_ids.items())

    def dumps(self) -> str:
        """The text of `vocabulary.txt`: three header lines, then one token per line in the order of the ids."""
        return "\n".join([_HEADER, f"sha256 {self.fingerprint}", self._roles_line(), *self.tokens, ""])

    @classmethod
    def loads(cls, text: str, source: str = "the text") -> Vocabulary:
        """Reads a text that `dumps` returned.

        Args:
            text: The content of a `vocabulary.txt`.
            source: Name of the text in error messages.

        Raises:
            DataError: If the text is not a vocabulary, is truncated, or was edited.
        """
        lines = text.replace("\r\n", "\n").split("\n")
        if lines[0] != _HEADER:
            raise DataError(
                f"{source} is not a nemo_cmim vocabulary: the text begins with {lines[0][:40]!r}, not with {_HEADER!r}. "
                "Load the .vocab file of a NeMo or BioNeMo model with Vocabulary.from_nemo"
            )
        roles = re.fullmatch(" ".join(rf"{role} (\d{{1,9}})" for role in _ROLES), lines[2]) if len(lines) > 2 else None
        if roles is None or lines[-1] != "":
            raise DataError(f"{source} is damaged or truncated; write the vocabulary again with Vocabulary.save")
        vocabulary = cls(tuple(lines[3:-1]), *map(int, roles.groups()))
        if lines[1] != f"sha256 {vocabulary.fingerprint}":
            raise DataError(
                f"{source} is damaged or was edited: its tokens do not match the checksum in the second line. "
                "Write a changed vocabulary with Vocabulary(tokens).save"
            )
        return vocabulary

    def save(self, path: str | Path) -> None:
        """Writes the vocabulary to `path`, usually named `vocabulary.txt`."""
        Path(path).write_text(self.dumps(), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Reads a file that `save` wrote.

        Raises:
            DataError: If the file is missing, damaged or not a vocabulary.
        """
        return cls.loads(_read_text(path), source=str(path))

    @classmethod
    def from_nemo(cls, vocab_path: str | Path, model_path: str | Path | None = None) -> Vocabulary:
        """Reads the vocabulary of a NeMo or BioNeMo `RegExTokenizer`.

        The ids are those of the file. SMILES are always split by the lossless expression of this package; a warning is issued if the
        expression of the file splits differently.

        Args:
            vocab_path: The `.vocab` file, one token per line.
            model_path: The `.model` file, a regular expression; None: no comparison.

        Raises:
            DataError: If a file is missing, damaged or of another kind, or if a special token is missing.
        """
        tokens = [line.strip() for line in _read_text(vocab_path).split("\n") if line.strip()]
        if tokens and tokens[0] == _HEADER:
            raise DataError(f"{vocab_path} is a nemo_cmim vocabulary; read it with Vocabulary.load")
        if len(set(tokens)) < len(tokens) and all(len(token) == 1 for token in tokens):
            raise DataError(
                f"{vocab_path} contains only the first letter of each token, as written by NeMo's RegExTokenizer.save_tokenizer, so the "
                "tokens cannot be recovered. Use the .vocab file that the model was originally trained with"
            )
        special = {role: _find_special(tokens, role, vocab_path) for role in _ROLES}
        if model_path is not None:
            _warn_if_split_differs(model_path)
        return cls(tuple(tokens), *special.values())


@cache
def shipped_vocabulary() -> Vocabulary:
    """The vocabulary of 523 tokens that ships with the package, written by `tools/build_vocabulary.py`."""
    return Vocabulary.load(_SHIPPED)


def _read_text(path: str | Path) -> str:
    """The text of a file, with its own line ends.

    Raises:
        DataError: If the file is missing, unreadable or not UTF-8.
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
    raise DataError(f"{path} has no {role} token: none of the {len(tokens)} lines is {' or '.join(_NEMO_TOKENS[role])}")


def _warn_if_split_differs(model_path: str | Path) -> None:
    """Issues a warning if the expression in the file splits a probe differently from `split`.

    Raises:
        DataError: If the file does not contain a regular expression.
    """
    text = _read_text(model_path).strip()
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(
            f"{model_path} does not contain a regular expression ({error}); pass the .model file of the tokenizer"
        ) from error
    for probe in _REGEX_PROBES:
        theirs = [match.group() for match in pattern.finditer(probe)]
        if theirs != split(probe):
            warnings.warn(
                f"the expression in {model_path} splits {probe!r} into {theirs}, but nemo_cmim splits {probe!r} into {split(probe)}. A "
                "model that was trained with the other expression has not seen these tokens in such SMILES",
                stacklevel=3,
            )
            return
