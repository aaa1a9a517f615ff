"""Which molecules are in which batch: a pure function of (seed, step), computed without going through earlier steps.

The molecules form an endless stream. Position p of the stream is in epoch p // N, and each epoch is a random permutation of
all N molecules, computed on the fly (`permute`). Batch `step` covers the B positions from step * B, so batches have a
constant size and no molecule is dropped: the last batch of an epoch is filled from the next epoch.

To reduce padding, the batches of an epoch are grouped in windows. The molecules of a window are sorted by length before they are
split into batches, and the batches of the window are used in random order.

If molecules are read in blocks, blocks of consecutive molecules are permuted instead of single molecules. A store holds its molecules
in the order of a hash, so that a block is a random sample. Each micro-batch then has a window of its own, of molecules that no other
micro-batch needs: a rank reads only some of the blocks.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BatchOrder", "LengthLookup", "Members", "permute", "permute_blocks"]

_ROUNDS = 8


def permute(positions: NDArray[np.int64], size: int, *key: int | str) -> NDArray[np.int64]:
    """Applies a random permutation of range(size), chosen by `key`, to `positions`. Memory does not depend on `size`.

    A Feistel network permutes at least `size` pairs (left, right). A result outside range(size) is permuted again (cycle walking),
    so that the map stays one to one.

    Args:
        positions: int64 [P], each in [0, size).
        size: Number of positions, at least 1.
        key: Equal keys give the same permutation on every machine.

    Returns:
        int64 [P], in [0, size).
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8 * _ROUNDS).digest()
    keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    lefts = math.isqrt(size - 1) + 1
    rights = -(-size // lefts)
    result = positions.astype(np.uint64)
    outside = np.arange(len(result))
    while len(outside):
        result[outside] = _feistel(result[outside], np.uint64(lefts), np.uint64(rights), keys)
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _feistel(numbers: NDArray[np.uint64], lefts: np.uint64, rights: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = np.divmod(numbers, rights)
    for left_key, right_key in keys.reshape(-1, 2):
        left = (left + _scramble(right ^ left_key) % lefts) % lefts
        right = (right + _scramble(left ^ right_key) % rights) % rights
    return left * rights + right


def _scramble(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A random-looking function of 64 bits: the output step of SplitMix64 (Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def permute_blocks(positions: NDArray[np.int64], size: int, block: int, *key: int | str) -> NDArray[np.int64]:
    """Permutes blocks of `block` positions (see `permute`). The shorter block at the end of range(size) also gets a random place."""
    if block == 1:
        return permute(positions, size, *key)
    full, tail = divmod(size, block)
    tail_at = block * int(permute(np.zeros(1, np.int64), full + 1, *key, "tail")[0])
    in_tail = (positions >= tail_at) & (positions < tail_at + tail)
    result = positions - tail_at + full * block
    blocks, places = np.divmod(np.where(positions < tail_at, positions, positions - tail)[~in_tail], block)
    result[~in_tail] = permute(blocks, full, *key) * block + places if full else places
    return result


class LengthLookup(Protocol):
    """The number of tokens of each molecule: an array, or an object that reads them."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: NDArray[np.int64], /) -> NDArray[np.int32]: ...


class Members(NamedTuple):
    """The molecules of a batch.

    Attributes:
        indices: int64 [B], their numbers in the split.
        epochs: int64 [B], the epoch of each.
    """

    indices: NDArray[np.int64]
    epochs: NDArray[np.int64]


class BatchOrder:
    """The order in which training sees N molecules, in global batches of B. See the docstring of the module.

    Args:
        lengths: [N or more], the number of tokens of each molecule of the split. Only those of a window are read at a time.
        batch_size: B, the number of molecules in a global batch.
        seed: Seed of the order.
        window: Number of batches that are sorted by length together; 1: not sorted.
        limit: Use only this many molecules, chosen at random; None: all.
        block: Number of consecutive molecules that stay together in the permutation of an epoch.

    Raises:
        ConfigError: If there are fewer molecules than a batch needs. Some would be in it twice, as their own negatives.
    """

    def __init__(
        self, lengths: LengthLookup, batch_size: int, *, seed: int = 0, window: int = 64, limit: int | None = None, block: int = 1
    ) -> None:
        self.molecules = len(lengths) if limit is None else min(limit, len(lengths))
        if batch_size > self.molecules:
            raise ConfigError(
                f"A global batch has {batch_size} molecules, but the data have only {self.molecules}. Reduce "
                "batch_size, or prepare more molecules."
            )
        self.batch_size = batch_size
        self.seed = seed
        self._lengths = lengths
        self._window = window
        self._block = block
        # The batches of a window, [steps, B / micro_batches], by its first step, the micro-batch and their number.
        self._sorted: dict[tuple[int, int, int], Members] = {}

    def members(self, step: int, micro_batch: int = 0, micro_batches: int = 1) -> Members:
        """The molecules of batch `step`, or of one of its `micro_batches` micro-batches: each field [B / micro_batches].

        Micro-batches are disjoint, of equal size and of similar lengths. Without blocks, their union does not depend on their number.
        With blocks, only the molecules of a whole window do not depend on it. Costs at most O(window * B), with blocks
        O(window * B / micro_batches), independent of `step`.

        Raises:
            ConfigError: If B is not a multiple of `micro_batches`.
        """
        if self.batch_size % micro_batches:
            raise ConfigError(f"A batch of {self.batch_size} molecules cannot be divided into {micro_batches} equal micro-batches.")
        first, stop = self._window_of(step)
        key = (first, micro_batch, micro_batches) if self._block > 1 else (first, 0, 1)
        if key not in self._sorted:
            if next(iter(self._sorted), key)[0] != first:
                self._sorted.clear()
            self._sorted[key] = self._batches(stop, *key)
        rows = slice(None) if self._block > 1 else slice(micro_batch, None, micro_batches)
        return Members(*(field[step - first, rows] for field in self._sorted[key]))

    def _window_of(self, step: int) -> tuple[int, int]:
        """The first step of the window of `step`, and the step after its last. A window ends at the end of its epoch at the latest."""
        epoch = step * self.batch_size // self.molecules
        epoch_start = -(-epoch * self.molecules // self.batch_size)  # the first step that begins in this epoch
        epoch_stop = -(-(epoch + 1) * self.molecules // self.batch_size)
        first = step - (step - epoch_start) % self._window
        return first, min(first + self._window, epoch_stop)

    def _batches(self, stop: int, first: int, micro_batch: int, micro_batches: int) -> Members:
        steps, size = stop - first, self.batch_size // micro_batches
        begin = first * self.batch_size + micro_batch * steps * size
        positions = np.arange(begin, begin + steps * size, dtype=np.int64)
        if self._block > 1:  # mix the molecules of different blocks
            positions = begin + permute(positions - begin, len(positions), self.seed, "mix", begin)
        epochs = positions // self.molecules
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = self._of_epoch(int(epoch), positions[epochs == epoch])
        if self._window > 1:
            # molecules of the next epoch stay at the end: otherwise a molecule would often be in a batch twice
            order = np.lexsort((self._lengths[indices], epochs))
            indices, epochs = indices[order], epochs[order]
        turns = permute(np.arange(steps), steps, self.seed, "batches", first)
        return Members(*(field.reshape(steps, size)[turns] for field in (indices, epochs)))

    def _of_epoch(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.select(permute_blocks(positions % self.molecules, self.molecules, self._block, self.seed, "epoch", epoch))

    def select(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers in the split of molecules that are in use: of all molecules, or of `limit` chosen at random."""
        if self.molecules == len(self._lengths):
            return order
        return permute_blocks(order, len(self._lengths), self._block, self.seed, "limit")
