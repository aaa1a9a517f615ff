"""Joins tokens of several molecules into one padded batch. Shape letters: see `types`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InvalidShapeError
from ..types import TokenBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import Vocabulary

    Rows = Sequence[Sequence[int] | NDArray[np.integer]]

__all__ = ["collate"]


def collate(tokens: Rows, vocabulary: Vocabulary, *, encoder_tokens: Rows | None = None) -> TokenBatch:
    """Pads molecules to the longest, and adds `<BOS>` before the decoder's input and `<EOS>` after its target.

    Args:
        tokens: B sequences of ids without special tokens, each with at least one.
        vocabulary: Gives the special ids.
        encoder_tokens: What the encoder gets in their place, if augmentation made that another string.

    Raises:
        InvalidShapeError: No molecule, or one without tokens.
    """
    ids_BS, is_token_BS, lengths_B = _pad(tokens, vocabulary)
    molecules, size = ids_BS.shape
    decoder_BT = np.insert(ids_BS, 0, vocabulary.bos_id, axis=1)
    target_BT = np.insert(ids_BS, size, vocabulary.pad_id, axis=1)
    target_BT[np.arange(molecules), lengths_B] = vocabulary.eos_id
    is_target_BT = np.arange(size + 1) <= lengths_B[:, None]
    if encoder_tokens is not None:
        ids_BS, is_token_BS, _ = _pad(encoder_tokens, vocabulary)
    return TokenBatch(*map(torch.from_numpy, (ids_BS, is_token_BS, decoder_BT, target_BT, is_target_BT)))


def _pad(tokens: Rows, vocabulary: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Ids [B, S], which of them are real, and how many [B]."""
    lengths_B = np.array([len(row) for row in tokens])
    if not len(lengths_B) or not lengths_B.all():
        empty = "there is none" if not len(lengths_B) else f"molecule {int(np.argmin(lengths_B))} has none"
        raise InvalidShapeError(f"A batch needs molecules with at least one token each, but {empty}.")
    is_token_BS = np.arange(int(lengths_B.max())) < lengths_B[:, None]
    ids_BS = np.full(is_token_BS.shape, vocabulary.pad_id, dtype=np.int64)
    ids_BS[is_token_BS] = np.concatenate(tokens)
    return ids_BS, is_token_BS, lengths_B
