"""Arrays of token ids, padded to the longest molecule. NumPy only, so that any engine can use it. See `types` for shape letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidShapeError

if TYPE_CHECKING:
    from .vocabulary import Vocabulary

__all__ = ["Rows", "decoder_input", "pad"]

Rows: TypeAlias = "Sequence[Sequence[int] | NDArray[np.integer]]"


def pad(tokens: Rows, vocabulary: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Padded ids [B, S], the mask of real ids [B, S], and their number in each row [B].

    Raises:
        InvalidShapeError: If there are no molecules, or if one has no tokens.
    """
    lengths_B = np.array([len(row) for row in tokens])
    if not len(lengths_B) or not lengths_B.all():
        problem = "there are no molecules" if not len(lengths_B) else f"molecule {int(np.argmin(lengths_B))} has no tokens"
        raise InvalidShapeError(f"A batch requires molecules with at least one token each, but {problem}.")
    is_token_BS = np.arange(int(lengths_B.max())) < lengths_B[:, None]
    ids_BS = np.full(is_token_BS.shape, vocabulary.pad_id, dtype=np.int64)
    ids_BS[is_token_BS] = np.concatenate(tokens)
    return ids_BS, is_token_BS, lengths_B


def decoder_input(ids_BS: NDArray[np.int64], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """`<BOS>` and the ids, [B, S + 1]."""
    return np.insert(ids_BS, 0, vocabulary.bos_id, axis=1)
