"""Which molecules are in which batch: a pure function of (seed, step), computed without going through earlier steps.

The molecules form an endless stream. Position p of the stream is in epoch p // N, and each epoch is a random permutation of
all N molecules, computed on the fly (`permute`). Batch `step` covers the B positions from step * B, so batches have a
constant size and no molecule is dropped: the last batch of an epoch is filled from the next epoch. So each micro-batch is a random sample
of the molecules: its gradient and its negatives (Eq. 4) are unbiased.

If molecules are read in blocks, blocks of consecutive molecules are permuted instead of single molecules. A store holds its molecules
in the order of a hash, so that a block is a random sample. The positions of 64 batches form a window, in which molecules are permuted
again. Each micro-batch has windows of its own, of molecules that no other micro-batch needs: a rank reads only some of the blocks.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BatchOrder", "Members", "permute", "permute_blocks"]

_ROUNDS = 8
_WINDOW = 64  # batches whose molecules are mixed if they are read in blocks


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
        molecules: Number of molecules of the split.
        batch_size: B, the number of molecules in a global batch.
        seed: Seed of the order.
        limit: Use only this many molecules, chosen at random; None: all.
        block: Number of consecutive molecules that stay together in the permutation of an epoch.

    Raises:
        ConfigError: If there are fewer molecules than a batch needs. Some would be in it twice, as their own negatives.
    """

    def __init__(self, molecules: int, batch_size: int, *, seed: int = 0, limit: int | None = None, block: int = 1) -> None:
        self.molecules = molecules if limit is None else min(limit, molecules)
        if batch_size > self.molecules:
            raise ConfigError(
                f"A global batch has {batch_size} molecules, but the data have only {self.molecules}. Reduce "
                "batch_size, or prepare more molecules."
            )
        self.batch_size = batch_size
        self.seed = seed
        self._all_molecules = molecules
        self._block = block
        # With blocks: the batches of a window, [steps, B / micro_batches], by its first step, the micro-batch and their number.
        self._windows: dict[tuple[int, int, int], Members] = {}

    def members(self, step: int, micro_batch: int = 0, micro_batches: int = 1) -> Members:
        """The molecules of batch `step`, or of one of its `micro_batches` micro-batches: each field [B / micro_batches].

        Micro-batches are disjoint and of equal size. Without blocks, their union does not depend on their number. With blocks, only the
        molecules of a whole window do not depend on it. Costs O(B / micro_batches), with blocks times 64 once per window, independent
        of `step`.

        Raises:
            ConfigError: If B is not a multiple of `micro_batches`.
        """
        if self.batch_size % micro_batches:
            raise ConfigError(f"A batch of {self.batch_size} molecules cannot be divided into {micro_batches} equal micro-batches.")
        size = self.batch_size // micro_batches
        if self._block == 1:
            return self._at(np.arange(size, dtype=np.int64) + (step * self.batch_size + micro_batch * size))
        first, stop = self._window_of(step)
        key = (first, micro_batch, micro_batches)
        if key not in self._windows:
            if next(iter(self._windows), key)[0] != first:
                self._windows.clear()
            self._windows[key] = self._window(first, stop, micro_batch, size)
        return Members(*(field[step - first] for field in self._windows[key]))

    def _window_of(self, step: int) -> tuple[int, int]:
        """The first step of the window of `step`, and the step after its last. A window ends at the end of its epoch at the latest."""
        epoch = step * self.batch_size // self.molecules
        epoch_start = -(-epoch * self.molecules // self.batch_size)  # the first step that begins in this epoch
        epoch_stop = -(-(epoch + 1) * self.molecules // self.batch_size)
        first = step - (step - epoch_start) % _WINDOW
        return first, min(first + _WINDOW, epoch_stop)

    def _window(self, first: int, stop: int, micro_batch: int, size: int) -> Members:
        """The molecules of one micro-batch in all steps of a window: each field [steps, size]."""
        steps = stop - first
        begin = first * self.batch_size + micro_batch * steps * size
        members = self._at(begin + permute(np.arange(steps * size), steps * size, self.seed, "mix", begin))
        # molecules of the next epoch stay at the end: otherwise a molecule would often be in a batch twice
        order = np.argsort(members.epochs, kind="stable")
        return Members(*(field[order].reshape(steps, size) for field in members))

    def _at(self, positions: NDArray[np.int64]) -> Members:
        """The molecules at these positions of the stream."""
        epochs = positions // self.molecules
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            is_in = epochs == epoch
            places = positions[is_in] % self.molecules
            indices[is_in] = self.select(permute_blocks(places, self.molecules, self._block, self.seed, "epoch", int(epoch)))
        return Members(indices, epochs)

    def select(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers in the split of molecules that are in use: of all molecules, or of `limit` chosen at random."""
        if self.molecules == self._all_molecules:
            return order
        return permute_blocks(order, self._all_molecules, self._block, self.seed, "limit")
