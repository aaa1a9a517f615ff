"""The methods of NeMo's `TokenizerSpec`, so that NeMo code can use a tokenizer of this package. NeMo is not imported."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .vocabulary import Vocabulary

__all__ = ["NemoTokenizerNames"]


class NemoTokenizerNames:
    """The part of NeMo's `TokenizerSpec` that requires only a vocabulary, and Megatron's short names of special ids.

    The names are those that NeMo and Megatron-Core call; this package uses few of them itself.
    """

    vocabulary: Vocabulary

    def tokens_to_text(self, tokens: Iterable[str]) -> str:
        """Joins tokens to a SMILES, without `<BOS>` and `<PAD>`, up to `<EOS>`."""
        special = self.vocabulary
        pad, bos, eos = (special.tokens[i] for i in (special.pad_id, special.bos_id, special.eos_id))
        return "".join(token for token in takewhile(lambda token: token != eos, tokens) if token not in (pad, bos))

    def tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """The ids of tokens, which may be special tokens.

        Raises:
            UnknownTokenError: If a token is not in the vocabulary.
        """
        return [self.vocabulary.id_of(token) for token in tokens]

    def ids_to_tokens(self, ids: ArrayLike) -> list[str]:
        """The tokens of ids, which may be special ids.

        Raises:
            UnknownTokenError: If an id is not in the vocabulary.
        """
        return [self.vocabulary.tokens[i] for i in self.vocabulary.check_ids(ids)]

    def token_to_id(self, token: str) -> int:
        """See `Vocabulary.id_of`."""
        return self.vocabulary.id_of(token)

    @property
    def vocab(self) -> dict[str, int]:
        """Token to id."""
        return {token: i for i, token in enumerate(self.vocabulary.tokens)}

    @property
    def inv_vocab(self) -> dict[int, str]:
        """Id to token."""
        return dict(enumerate(self.vocabulary.tokens))

    @property
    def vocab_size(self) -> int:
        """The number of tokens, without padding to a multiple."""
        return len(self.vocabulary)

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @property
    def unique_identifiers(self) -> OrderedDict[str, str]:
        """Identifies this tokenizer in the caches of Megatron-Core's data sets."""
        kind = type(self)
        return OrderedDict({"class": f"{kind.__module__}.{kind.__qualname__}", "vocabulary": self.vocabulary.fingerprint})

    @property
    def pad_id(self) -> int:
        """Id of padding."""
        return self.vocabulary.pad_id

    @property
    def unk_id(self) -> int:
        """Id of an unknown token."""
        return self.vocabulary.unk_id

    @property
    def bos_id(self) -> int:
        """Id of the start of a sequence."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int:
        """Id of the end of a sequence."""
        return self.vocabulary.eos_id

    @property
    def mask_id(self) -> int:
        """Id of a masked token."""
        return self.vocabulary.mask_id

    @property
    def sep_id(self) -> int:
        """Id of a separator."""
        return self.vocabulary.sep_id

    pad, unk, bos, eos, mask, sep = pad_id, unk_id, bos_id, eos_id, mask_id, sep_id
    eod = eos_id
