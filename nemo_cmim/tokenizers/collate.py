"""Joins the tokens of several molecules into one padded batch. See `types` for shape letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..types import TokenBatch
from .padding import Rows, decoder_input, pad

if TYPE_CHECKING:
    from . import Vocabulary

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
    ids_BS, is_token_BS, lengths_B = pad(tokens, vocabulary)
    molecules, size = ids_BS.shape
    decoder_BT = decoder_input(ids_BS, vocabulary)
    target_BT = np.insert(ids_BS, size, vocabulary.pad_id, axis=1)
    target_BT[np.arange(molecules), lengths_B] = vocabulary.eos_id
    is_target_BT = np.arange(size + 1) <= lengths_B[:, None]
    if encoder_tokens is not None:
        ids_BS, is_token_BS, _ = pad(encoder_tokens, vocabulary)
    return TokenBatch(*map(torch.from_numpy, (ids_BS, is_token_BS, decoder_BT, target_BT, is_target_BT)))
