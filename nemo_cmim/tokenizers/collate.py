"""Joins the tokens of several molecules into one padded batch. See `types` for shape letters."""

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
    """Pads molecules to the longest one, and adds `<BOS>` to the decoder input and `<EOS>` to the target.

    Args:
        tokens: B sequences of ids without special tokens, each with at least one id.
        vocabulary: Vocabulary with the special ids.
        encoder_tokens: Ids for the encoder, if augmentation gave it a different SMILES; None: `tokens`.

    Raises:
        InvalidShapeError: If there are no molecules, or if one has no tokens.
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
    """Padded ids [B, S], the mask of real ids [B, S], and their number in each row [B]."""
    lengths_B = np.array([len(row) for row in tokens])
    if not len(lengths_B) or not lengths_B.all():
        problem = "there are no molecules" if not len(lengths_B) else f"molecule {int(np.argmin(lengths_B))} has no tokens"
        raise InvalidShapeError(f"A batch requires molecules with at least one token each, but {problem}.")
    is_token_BS = np.arange(int(lengths_B.max())) < lengths_B[:, None]
    ids_BS = np.full(is_token_BS.shape, vocabulary.pad_id, dtype=np.int64)
    ids_BS[is_token_BS] = np.concatenate(tokens)
    return ids_BS, is_token_BS, lengths_B
