"""Molecules of a split by number, from shards in Megatron's indexed format (`.bin`, `.idx`) with one document per molecule.

Local shards are read with `pread`, one molecule at a time. They are not memory-mapped: over terabytes, page tables grow with each
molecule that is read, a page fault reads far more than the 90 bytes of a molecule, and Python's `mmap` keeps a file handle open anyway.
Remote shards are read in blocks of consecutive molecules. Memory is bounded in both cases.

Megatron's own `IndexedDataset` reads a single file, keeps arrays of all its molecules, and unmaps them while they may still be in use.
Importing it takes seconds in each process, so shards are also written here.
"""

from __future__ import annotations

import itertools
import os
import resource
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .folder import ByteRange, Folder

__all__ = ["BlockShards", "LocalShards", "ShardMap", "write_shard"]

_HEADER = struct.Struct("<9sQBQQ")  # of .idx: magic, version, code of the dtype, number of sequences, of documents + 1
_MAGIC = b"MMIDIDX\0\0"
_LARGE_VOCABULARY = 65_500  # from this size, Megatron uses 4 bytes for an id
_DTYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_LENGTH = 4  # bytes in .idx of a molecule's number of tokens
_START = 8  # bytes in .idx, after all lengths, of a molecule's first byte in .bin
_PAGE = 4096  # bytes that a disk reads at least
_SPAN = 4 << 20  # molecules of a shard whose lengths may be read at once: 16 MB
_BLOCKS_AT_ONCE = 64

Tokens = NDArray[np.integer]


def write_shard(prefix: Path, tokens: NDArray[np.integer], lengths: NDArray[np.int64], vocabulary_size: int) -> list[Path]:
    """Writes one shard in the format of Megatron's `IndexedDatasetBuilder`, with one document per molecule.

    Args:
        prefix: Path of the files without their suffixes.
        tokens: The ids of all molecules, concatenated.
        lengths: int64 [N], the number of ids of each molecule.
        vocabulary_size: Number of tokens of the vocabulary, which determines the number of bytes of an id.

    Returns:
        The paths of the `.bin` and `.idx` file.
    """
    code = 8 if vocabulary_size < _LARGE_VOCABULARY else 4
    content, index = (prefix.with_name(f"{prefix.name}.{kind}") for kind in ("bin", "idx"))
    tokens.astype(_DTYPES[code]).tofile(content)
    stops = np.cumsum(lengths, dtype="<i8") * _DTYPES[code].itemsize
    with index.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, 1, code, len(lengths), len(lengths) + 1))
        for array in (lengths.astype("<i4"), stops - lengths * _DTYPES[code].itemsize, np.arange(len(lengths) + 1, dtype="<i8")):
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return [content, index]


def _dtype_of(header: bytes, location: str, molecules: int) -> np.dtype[Any]:
    """The dtype of `.bin`, from the header of `.idx`."""
    magic, version, code, count, _ = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0, 0, 0)
    if (magic, version) != (_MAGIC, 1) or code not in _DTYPES:
        known = " or ".join(map(str, _DTYPES.values()))
        raise DataError(f"{location} is not a Megatron index of version 1 with {known}. Prepare the folder again.")
    if count != molecules:
        raise DataError(f"{location} lists {count} molecules, but the manifest lists {molecules}. Prepare the folder again.")
    return _DTYPES[code]


class ShardMap:
    """Maps the number of a molecule to its shard and its position in the shard.

    Args:
        shards: `name` and number of `molecules` of each shard, as in the manifest.
    """

    def __init__(self, shards: Sequence[Mapping[str, Any]]) -> None:
        self.names = [shard["name"] for shard in shards]
        self.counts = [shard["molecules"] for shard in shards]
        self.stops = np.cumsum(self.counts, dtype=np.int64)
        self.starts = self.stops - np.asarray(self.counts, np.int64)

    @property
    def molecules(self) -> int:
        """Number of molecules in all shards."""
        return int(self.stops[-1]) if len(self.stops) else 0

    def locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shard of each molecule, and its position in the shard: each int64 [P].

        Raises:
            IndexError: If there is no molecule of this number.
        """
        outside = (indices < 0) | (indices >= self.molecules)
        if outside.any():
            raise IndexError(f"molecule {indices[outside][0]} of {self.molecules}")
        shards = np.searchsorted(self.stops, indices, side="right")
        return shards, indices - self.starts[shards]

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Splits molecules `start` to `stop` by shard: number of the shard, first position, and the position after the last."""
        shard = int(np.searchsorted(self.stops, start, side="right"))
        while start < stop:
            begin, end = int(self.starts[shard]), min(stop, int(self.stops[shard]))
            if start < end:
                yield shard, start - begin, end - begin
            start, shard = end, shard + 1


class _Handle:
    """An open file descriptor that is closed when the object is deleted."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class LocalShards:
    """Molecules of shards on a disk. A quarter of the files that a process may open stay open; others are opened for each read."""

    def __init__(self, path: Path, shard_map: ShardMap) -> None:
        self._path, self.shard_map = path, shard_map
        self._open: dict[tuple[int, str], _Handle] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_open = (1024 if limit == resource.RLIM_INFINITY else limit) // 4  # a process has a few stores
        self._dtypes: dict[int, np.dtype[Any]] = {}  # of shards whose header was read

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalShards, (self._path, self.shard_map)

    def _file(self, shard: int, kind: str) -> str:
        return f"{self._path}/{self.shard_map.names[shard]}.{kind}"

    def _handle(self, shard: int, kind: str) -> _Handle:
        handle = self._open.get((shard, kind))
        if handle is None:
            try:
                handle = _Handle(os.open(self._file(shard, kind), os.O_RDONLY))
            except FileNotFoundError as error:
                raise DataError(f"{error.filename} is missing. Prepare or copy the folder again.") from error
            if shard not in self._dtypes and kind == "idx":
                header = os.pread(handle.number, _HEADER.size, 0)
                self._dtypes[shard] = _dtype_of(header, self._file(shard, kind), self.shard_map.counts[shard])
            if len(self._open) < self._max_open:
                self._open[shard, kind] = handle
        return handle

    def lengths(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """The numbers of tokens, int32 [P]."""
        found = np.empty(len(indices), np.int32)
        order = np.argsort(indices)
        shards, positions = self.shard_map.locate(indices[order])
        for rows in _runs(shards, positions // _SPAN):
            index = self._handle(int(shards[rows.start]), "idx")
            found[order[rows]] = _read_lengths(index.number, positions[rows])
        return found

    def gather(self, indices: NDArray[np.int64]) -> list[Tokens]:
        """The tokens of each molecule."""
        found: dict[int, Tokens] = {}
        order = np.argsort(indices)
        shards, positions = self.shard_map.locate(indices[order])
        for rows in _runs(shards):
            shard = int(shards[rows.start])
            index, content = self._handle(shard, "idx"), self._handle(shard, "bin")
            for i, position in zip(order[rows].tolist(), positions[rows].tolist()):
                found[i] = self._tokens(shard, position, index.number, content.number)
        return [found[i] for i in range(len(found))]

    def _tokens(self, shard: int, position: int, index: int, content: int) -> Tokens:
        """The tokens of a molecule, which end where those of the next molecule start."""
        bounds = os.pread(index, 2 * _START, _HEADER.size + _LENGTH * self.shard_map.counts[shard] + _START * position)
        start, stop = int.from_bytes(bounds[:_START], "little"), int.from_bytes(bounds[_START:], "little")
        if position == self.shard_map.counts[shard] - 1:
            stop = os.fstat(content).st_size
        found = os.pread(content, stop - start, start) if start < stop else b""
        if not found or len(found) != stop - start:
            raise DataError(f"{self._file(shard, 'bin')} does not contain molecule {position}. Prepare or copy the folder again.")
        return np.frombuffer(found, self._dtypes[shard])


def _runs(*keys: NDArray[np.int64]) -> list[slice]:
    """Slices of consecutive elements in which all keys are equal."""
    changes = np.any([np.diff(key) != 0 for key in keys], axis=0).nonzero()[0] + 1
    bounds = [0, *changes.tolist(), len(keys[0])]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds) if start < stop]


def _read_lengths(index: int, positions: NDArray[np.int64]) -> NDArray[np.int32]:
    """Lengths of molecules in ascending order: in one read if there is at least one molecule per page, else one by one."""
    first, last = int(positions[0]), int(positions[-1])
    if last - first < _PAGE // _LENGTH * len(positions):
        return np.frombuffer(os.pread(index, _LENGTH * (last + 1 - first), _HEADER.size + _LENGTH * first), "<i4")[
            positions - first
        ]
    offsets = (_HEADER.size + _LENGTH * positions).tolist()
    return np.frombuffer(b"".join([os.pread(index, _LENGTH, offset) for offset in offsets]), "<i4")


class _Block:
    """Consecutive molecules: their lengths, the byte ranges of their tokens, and the tokens, if they were read."""

    def __init__(self, lengths: NDArray[np.int32], ranges: list[ByteRange], dtype: np.dtype[Any]) -> None:
        self.lengths, self.ranges, self.dtype = lengths, ranges, dtype
        self.stops = np.cumsum(lengths, dtype=np.int64)
        self.tokens: Tokens | None = None

    @property
    def bytes(self) -> int:
        return self.lengths.nbytes + self.stops.nbytes + (0 if self.tokens is None else self.tokens.nbytes)


class BlockShards:
    """Molecules of remote shards, read in blocks of consecutive molecules. The blocks used last are cached.

    Args:
        folder: The folder of the shards.
        shard_map: The shards.
        block: Number of molecules in a block.
        max_bytes: Maximum size of the cache.
    """

    def __init__(self, folder: Folder, shard_map: ShardMap, block: int, max_bytes: int = 256 << 20) -> None:
        self._folder, self.shard_map, self._size, self._max_bytes = folder, shard_map, block, max_bytes
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._dtypes: dict[int, np.dtype[Any]] = {}  # of shards whose header was read
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockShards, (self._folder, self.shard_map, self._size, self._max_bytes)

    def lengths(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """The numbers of tokens, int32 [P]."""
        found = np.empty(len(indices), np.int32)
        for block, number, rows in self._visit(indices, tokens=False):
            found[rows] = block.lengths[indices[rows] - number * self._size]
        return found

    def gather(self, indices: NDArray[np.int64]) -> list[Tokens]:
        """The tokens of each molecule."""
        found: dict[int, Tokens] = {}
        for block, number, rows in self._visit(indices, tokens=True):
            assert block.tokens is not None
            positions = indices[rows] - number * self._size
            stops = block.stops[positions]
            for i, start, stop in zip(rows.tolist(), (stops - block.lengths[positions]).tolist(), stops.tolist()):
                found[i] = block.tokens[start:stop].copy()  # a view would keep the whole block in memory
        return [found[i] for i in range(len(indices))]

    def _visit(self, indices: NDArray[np.int64], *, tokens: bool) -> Iterator[tuple[_Block, int, NDArray[np.int64]]]:
        """The blocks of these molecules: each with its number, and the places in `indices` of its molecules."""
        self.shard_map.locate(indices)
        numbers = indices // self._size
        order = np.argsort(numbers, kind="stable")
        groups = [order[rows] for rows in _runs(numbers[order])]
        for first in range(0, len(groups), _BLOCKS_AT_ONCE):
            group_of = {int(numbers[group[0]]): group for group in groups[first : first + _BLOCKS_AT_ONCE]}
            for number, block in self._read(list(group_of), tokens=tokens).items():
                yield block, number, group_of[number]

    def _read(self, numbers: list[int], *, tokens: bool) -> dict[int, _Block]:
        """Blocks from the cache, or read by two rounds of requests: one for lengths, one for tokens."""
        blocks = self._read_lengths([number for number in numbers if number not in self._blocks])
        for number in numbers:
            if number in self._blocks:
                blocks[number] = self._blocks.pop(number)
                self._bytes -= blocks[number].bytes
        unread = [block for block in blocks.values() if block.tokens is None] if tokens else []
        contents = iter(self._folder.read_ranges([span for block in unread for span in block.ranges]))
        for block in unread:
            block.tokens = np.frombuffer(b"".join(next(contents) for _ in block.ranges), block.dtype)
        for number, block in blocks.items():
            self._blocks[number] = block
            self._bytes += block.bytes
        while self._bytes > self._max_bytes and self._blocks:
            self._bytes -= self._blocks.popitem(last=False)[1].bytes
        return blocks

    def _read_lengths(self, numbers: list[int]) -> dict[int, _Block]:
        cuts = {
            number: list(self.shard_map.cut(number * self._size, min((number + 1) * self._size, self.shard_map.molecules)))
            for number in numbers
        }
        unknown = sorted({shard for cut in cuts.values() for shard, _, _ in cut} - set(self._dtypes))
        ranges = [ByteRange(f"{self.shard_map.names[shard]}.idx", 0, _HEADER.size) for shard in unknown]
        for shard, first, stop in itertools.chain.from_iterable(cuts.values()):
            index, starts_at = f"{self.shard_map.names[shard]}.idx", _HEADER.size + _LENGTH * self.shard_map.counts[shard]
            ranges.append(ByteRange(index, _HEADER.size + _LENGTH * first, _HEADER.size + _LENGTH * stop))
            ranges.append(ByteRange(index, starts_at + _START * first, starts_at + _START * (first + 1)))
        contents = iter(self._folder.read_ranges(ranges))
        for shard in unknown:
            location = self._folder.location(f"{self.shard_map.names[shard]}.idx")
            self._dtypes[shard] = _dtype_of(next(contents), location, self.shard_map.counts[shard])
        return {number: self._block(cut, contents) for number, cut in cuts.items()}

    def _block(self, cut: list[tuple[int, int, int]], contents: Iterator[bytes]) -> _Block:
        lengths, ranges = [], []
        for shard, _, _ in cut:
            lengths.append(np.frombuffer(next(contents), "<i4"))
            start = int.from_bytes(next(contents), "little")  # of the first molecule; the others follow without gaps
            size = int(lengths[-1].sum(dtype=np.int64)) * self._dtypes[shard].itemsize
            ranges.append(ByteRange(f"{self.shard_map.names[shard]}.bin", start, start + size))
        return _Block(np.concatenate(lengths), ranges, self._dtypes[cut[0][0]])
