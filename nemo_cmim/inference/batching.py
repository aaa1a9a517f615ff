"""Which molecules are computed together, and the weights of their positions in a vector. NumPy only, so that any engine can use it.

A molecule's vector does not depend on its batch: batches only decide speed and memory. Molecules are sorted by length, so that little
of a batch is padding. Shape letters: N molecules, B molecules of a batch, T decoder positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import NetworkConfig

__all__ = [
    "DECODED_MOLECULES",
    "BatchLimits",
    "Progress",
    "batch_limits",
    "length_sorted_batches",
    "pooling_weights",
    "token_budget_slices",
]

Progress = Callable[[int, int], None]
"""Called with the number of molecules done and of all molecules."""

DECODED_MOLECULES = 256
"""Molecules that are decoded together unless the caller says otherwise."""

_PERCEIVER_MOLECULES = 512  # K latents for each molecule are little work, so only large batches are efficient
_TOKEN_ENCODER_MOLECULES = 64
_DECODER_TOKENS = 2048  # more tokens are not faster on a CPU; with fewer, matrix multiplications are slower
_GPU_FACTOR = 64  # a GPU needs larger batches; not measured on a GPU yet


class BatchLimits(NamedTuple):
    """Sizes of batches.

    Attributes:
        encoder_molecules: Maximum number of molecules in a batch of the encoder.
        decoder_tokens: Maximum number of tokens in a batch of the decoder, padding included.
        decoder_molecules: Maximum number of molecules in a batch of the decoder; None: limited by tokens only.
    """

    encoder_molecules: int
    decoder_tokens: int
    decoder_molecules: int | None = None

    def halved(self) -> BatchLimits:
        """Half of each limit, at least 1."""
        return BatchLimits(*(None if limit is None else max(1, limit // 2) for limit in self))  # type: ignore[arg-type]


def batch_limits(network: NetworkConfig, batch_size: int | None, *, on_gpu: bool) -> BatchLimits:
    """Sizes of batches for a network.

    Args:
        network: Its encoder determines the default.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        on_gpu: Whether the network runs on a GPU.
    """
    factor = _GPU_FACTOR if on_gpu else 1
    molecules = factor * (_PERCEIVER_MOLECULES if network.encoder == "perceiver" else _TOKEN_ENCODER_MOLECULES)
    return BatchLimits(batch_size or molecules, factor * _DECODER_TOKENS, batch_size)


def length_sorted_batches(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.int64]]:
    """Indices of molecules in batches of at most `size`, from the shortest molecules to the longest.

    Args:
        lengths: Tokens of each of N molecules.
        size: Maximum number of molecules in a batch.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def token_budget_slices(lengths: Sequence[int], limits: BatchLimits) -> Iterator[slice]:
    """Consecutive slices of molecules that fit into a batch of the decoder when padded to the longest; at least one molecule each.

    Args:
        lengths: Tokens of each molecule, ascending. The decoder has one position more, for `<BOS>`.
        limits: Maximum numbers of tokens and molecules in a slice.
    """
    start = 0
    while start < len(lengths):
        stop = start + 1
        most = start + (limits.decoder_molecules or len(lengths))
        while stop < min(most, len(lengths)) and (stop - start + 1) * (lengths[stop] + 1) <= limits.decoder_tokens:
            stop += 1
        yield slice(start, stop)
        start = stop


def pooling_weights(lengths: Sequence[int], pooling: str) -> NDArray[np.float32]:
    """Weight of each decoder position in a molecule's vector, float32 [B, 1, T]; rows sum to 1, padding has weight 0.

    Args:
        lengths: Tokens of each of B molecules; each has one position more, which predicts `<EOS>`. T is the longest of them.
        pooling: "mean" over these positions, or "last": only the one that predicts `<EOS>`.
    """
    last_B1 = np.asarray(lengths)[:, None]
    position_T = np.arange(last_B1.max() + 1)
    if pooling == "last":
        return (position_T == last_B1).astype(np.float32)[:, None]
    return ((position_T <= last_B1) / (last_B1 + 1)).astype(np.float32)[:, None]
