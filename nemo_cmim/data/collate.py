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

    from ..tokenizers import Vocabulary

__all__ = ["collate"]


def collate(tokens: Sequence[Sequence[int] | NDArray[np.integer]], vocabulary: Vocabulary, pad_to_multiple: int = 1) -> TokenBatch:
    """Pads molecules to the longest, and adds `<BOS>` before the decoder's input and `<EOS>` after its target.

    Args:
        tokens: B sequences of ids without special tokens, each with at least one.
        vocabulary: Gives the special ids.
        pad_to_multiple: S is rounded up to a multiple of this.

    Raises:
        InvalidShapeError: No molecule, or one without tokens.
    """
    lengths_B = np.array([len(row) for row in tokens])
    if not len(lengths_B) or not lengths_B.all():
        empty = "there is none" if not len(lengths_B) else f"molecule {int(np.argmin(lengths_B))} has none"
        raise InvalidShapeError(f"A batch needs molecules with at least one token each, but {empty}.")
    size = -(-int(lengths_B.max()) // pad_to_multiple) * pad_to_multiple
    is_token_BS = np.arange(size) < lengths_B[:, None]
    encoder_BS = np.full(is_token_BS.shape, vocabulary.pad_id, dtype=np.int64)
    encoder_BS[is_token_BS] = np.concatenate(tokens)
    decoder_BT = np.insert(encoder_BS, 0, vocabulary.bos_id, axis=1)
    target_BT = np.insert(encoder_BS, size, vocabulary.pad_id, axis=1)
    target_BT[np.arange(len(lengths_B)), lengths_B] = vocabulary.eos_id
    is_target_BT = np.arange(size + 1) <= lengths_B[:, None]
    return TokenBatch(*map(torch.from_numpy, (encoder_BS, is_token_BS, decoder_BT, target_BT, is_target_BT)))
