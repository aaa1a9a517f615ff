"""Padded batches compared with a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_cmim.errors import InvalidShapeError
from nemo_cmim.tokenizers import shipped_vocabulary
from nemo_cmim.tokenizers.collate import collate

VOCABULARY = shipped_vocabulary()


@pytest.mark.parametrize("kind", [np.uint16, np.int64, list])
def test_batches_equal_a_loop(kind: type) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(6, 523, length).tolist() for length in (5, 1, 12, 12, 7)]
    batch = collate([row if kind is list else np.array(row, dtype=kind) for row in rows], VOCABULARY)
    size = 12
    pad, bos, eos = VOCABULARY.pad_id, VOCABULARY.bos_id, VOCABULARY.eos_id
    for i, row in enumerate(rows):
        rest = size - len(row)
        assert batch.encoder_BS[i].tolist() == row + [pad] * rest
        assert batch.is_token_BS[i].tolist() == [True] * len(row) + [False] * rest
        assert batch.decoder_BT[i].tolist() == [bos, *row] + [pad] * rest
        assert batch.target_BT[i].tolist() == [*row, eos] + [pad] * rest
        assert batch.is_target_BT[i].tolist() == [True] * (len(row) + 1) + [False] * rest
    assert [t.dtype for t in batch] == [torch.int64, torch.bool, torch.int64, torch.int64, torch.bool]
    assert all(t.is_contiguous() for t in batch)


def test_batches_without_tokens() -> None:
    with pytest.raises(InvalidShapeError, match="there are no molecules"):
        collate([], VOCABULARY)
    with pytest.raises(InvalidShapeError, match="molecule 1 has no tokens"):
        collate([[7], []], VOCABULARY)
