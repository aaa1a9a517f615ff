"""Records of a fixed number of bytes for each molecule, in one file beside each shard. Shape letters: N molecules, W bytes."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from .folder import ByteRange, Folder
from .shards import ShardMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Records"]


class Records:
    """Reads records by the numbers of their molecules.

    Args:
        folder: The folder of the shards.
        shard_map: The shards.
        suffix: Suffix of the files of records.
        width: W, the number of bytes of a record.
        block: Number of consecutive molecules that are read together. With more than one, the blocks used last are cached.
        max_bytes: Maximum size of the cache.
    """

    def __init__(self, folder: Folder, shard_map: ShardMap, suffix: str, width: int, block: int, max_bytes: int = 64 << 20) -> None:
        self._folder, self._shard_map, self._suffix, self._width, self._block = folder, shard_map, suffix, width, block
        self._cached_blocks = 0 if block == 1 else max(1, max_bytes // (block * width))
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The records of N molecules, uint8 [N, W].

        Raises:
            IndexError: If there is no molecule of a number.
            DataError: If a file is missing, ends too early or cannot be read.
        """
        self._shard_map.locate(indices)  # checks the numbers
        numbers, places = np.divmod(indices, self._block)
        blocks = self._read(np.unique(numbers).tolist())
        return np.stack([blocks[number][place] for number, place in zip(numbers.tolist(), places.tolist())])

    def _read(self, numbers: list[int]) -> dict[int, NDArray[np.uint8]]:
        blocks = {number: self._cache[number] for number in numbers if number in self._cache}
        unread = [number for number in numbers if number not in blocks]
        ranges = [self._ranges(number) for number in unread]
        contents = iter(self._folder.read_ranges(list(itertools.chain.from_iterable(ranges))))
        for number, parts in zip(unread, ranges):
            blocks[number] = np.frombuffer(b"".join(next(contents) for _ in parts), np.uint8).reshape(-1, self._width)
        if self._cached_blocks:
            for number, block in blocks.items():
                self._cache[number] = block
                self._cache.move_to_end(number)
            while len(self._cache) > self._cached_blocks:
                self._cache.popitem(last=False)
        return blocks

    def _ranges(self, number: int) -> list[ByteRange]:
        start, width = number * self._block, self._width
        cuts = self._shard_map.cut(start, min(start + self._block, self._shard_map.molecules))
        return [ByteRange(f"{self._shard_map.names[shard]}{self._suffix}", width * a, width * b) for shard, a, b in cuts]
