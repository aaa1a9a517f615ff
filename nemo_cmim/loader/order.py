"""Which molecules make up which batch: a pure function of (seed, step), found without going through earlier steps.

The molecules come as an endless stream. Position p of the stream lies in epoch p // N, and each epoch is a random permutation of
all N molecules, computed on the fly (`permute`). Batch `step` covers the positions from step * B on, so batches have a
constant size and nothing is dropped: an epoch's last batch is filled up from the next epoch.

To save padding, the batches of an epoch are taken in windows; the molecules of a window are sorted by length before they are cut
into batches, and the batches of the window come in random order.

Where molecules are fetched in blocks, the permutation is one of blocks of consecutive molecules. A store holds its molecules in the
order of a hash, so a block is a random sample already. Each part of a batch (a rank's micro-batch) then sorts a window of its own,
of molecules that no other part needs: a rank reads its share of the blocks, and not all.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BatchOrder", "LengthTable", "Members", "permute", "permute_blocks"]

_ROUNDS = 8


def permute(positions: NDArray[np.int64], size: int, *key: int | str) -> NDArray[np.int64]:
    """Where a random permutation of range(size), picked by `key`, sends `positions`. Memory does not depend on `size`.

    A Feistel network on pairs (left, right) that number at least `size`; a result that is no position goes through it again
    (cycle walking), which keeps the map one to one.

    Args:
        positions: int64 [P], each in [0, size).
        size: Number of positions, at least 1.
        key: Equal keys give the same permutation, on every machine.

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
    """As `permute`, but runs of `block` positions stay together. The shorter block at the end of range(size) gets a random place too."""
    if block == 1:
        return permute(positions, size, *key)
    full, tail = divmod(size, block)
    tail_at = block * int(permute(np.zeros(1, np.int64), full + 1, *key, "tail")[0])
    in_tail = (positions >= tail_at) & (positions < tail_at + tail)
    result = positions - tail_at + full * block
    blocks, places = np.divmod(np.where(positions < tail_at, positions, positions - tail)[~in_tail], block)
    result[~in_tail] = permute(blocks, full, *key) * block + places if full else places
    return result


class LengthTable(Protocol):
    """The number of tokens of each molecule: an array, or what looks them up."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: NDArray[np.int64], /) -> NDArray[np.int32]: ...


class Members(NamedTuple):
    """The molecules of a batch.

    Attributes:
        indices: int64 [B], where in the split they lie.
        epochs: int64 [B], the pass over the data in which each is met.
    """

    indices: NDArray[np.int64]
    epochs: NDArray[np.int64]


class BatchOrder:
    """The order in which training sees N molecules, in global batches of B. See the module's docstring.

    Args:
        lengths: [N or more], the number of tokens of each molecule of the split. Only those of a window are looked up at a time.
        batch_size: B, molecules in a batch of all ranks together.
        seed: Another seed gives another order.
        window: Batches that are sorted by length together. 1 does not sort.
        limit: Use only this many molecules, chosen at random.
        block: Consecutive molecules that stay together in an epoch's permutation.

    Raises:
        ConfigError: There are fewer molecules than a batch needs: some would be in it twice, as their own negatives.
    """

    def __init__(
        self, lengths: LengthTable, batch_size: int, *, seed: int = 0, window: int = 64, limit: int | None = None, block: int = 1
    ) -> None:
        self.molecules = len(lengths) if limit is None else min(limit, len(lengths))
        if batch_size > self.molecules:
            raise ConfigError(
                f"A batch takes {batch_size} molecules (over all ranks), but there are only {self.molecules}: lower "
                "batch_size, or prepare more molecules."
            )
        self.batch_size = batch_size
        self.seed = seed
        self._lengths = lengths
        self._window = window
        self._block = block
        self._sorted: dict[tuple[int, int, int], Members] = {}  # batches [steps, B / parts] of a window, by first step, part, parts

    def batch_indices(self, step: int, part: int = 0, parts: int = 1) -> NDArray[np.int64]:
        """The indices of `members`."""
        return self.members(step, part, parts).indices

    def members(self, step: int, part: int = 0, parts: int = 1) -> Members:
        """The molecules of batch `step`, or of one of `parts` micro-batches that it is cut into: each field [B / parts].

        The parts are disjoint, equally large and of similar lengths. Without blocks, they are always the same batch together; with
        blocks, only what a window of batches holds is the same for any number of parts. Costs O(window * B) at worst, and with blocks
        O(window * B / parts), not O(step).

        Raises:
            ConfigError: B cannot be divided into so many parts.
        """
        if self.batch_size % parts:
            raise ConfigError(f"A batch of {self.batch_size} molecules cannot be divided into {parts} equal parts.")
        first, stop = self._window_of(step)
        key = (first, part, parts) if self._block > 1 else (first, 0, 1)
        if key not in self._sorted:
            if next(iter(self._sorted), key)[0] != first:
                self._sorted.clear()
            self._sorted[key] = self._batches(stop, *key)
        own = slice(None) if self._block > 1 else slice(part, None, parts)
        return Members(*(field[step - first, own] for field in self._sorted[key]))

    def _window_of(self, step: int) -> tuple[int, int]:
        """First step of the window that `step` is in, and the step after its last. A window does not go beyond its epoch."""
        epoch = step * self.batch_size // self.molecules
        epoch_start = -(-epoch * self.molecules // self.batch_size)  # the first step that begins in this epoch
        epoch_stop = -(-(epoch + 1) * self.molecules // self.batch_size)
        first = step - (step - epoch_start) % self._window
        return first, min(first + self._window, epoch_stop)

    def _batches(self, stop: int, first: int, part: int, parts: int) -> Members:
        steps, size = stop - first, self.batch_size // parts
        begin = first * self.batch_size + part * steps * size
        positions = np.arange(begin, begin + steps * size, dtype=np.int64)
        if self._block > 1:  # molecules of a block are not mixed yet
            positions = begin + permute(positions - begin, len(positions), self.seed, "mix", begin)
        epochs = positions // self.molecules
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = self._of_epoch(int(epoch), positions[epochs == epoch])
        if self._window > 1:
            # what the next epoch lends stays at the end: sorted in, a molecule would often meet itself in a batch
            order = np.lexsort((self._lengths[indices], epochs))
            indices, epochs = indices[order], epochs[order]
        turns = permute(np.arange(steps), steps, self.seed, "batches", first)
        return Members(*(field.reshape(steps, size)[turns] for field in (indices, epochs)))

    def _of_epoch(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.select(permute_blocks(positions % self.molecules, self.molecules, self._block, self.seed, "epoch", epoch))

    def select(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the split the molecules lie that are in use: all, or `limit` of them chosen at random."""
        if self.molecules == len(self._lengths):
            return order
        return permute_blocks(order, len(self._lengths), self._block, self.seed, "limit")
