"""Molecules of a split by number, from shards in Megatron's indexed format (`.bin`, `.idx`) with one document per molecule.

Local shards are read with `pread`, a molecule at a time, and are not mapped: over terabytes the page tables of a map grow with each
molecule that is touched, a fault reads far more around it than its 90 bytes, and a map of Python's holds a file handle anyway. Remote
shards are read in blocks of consecutive molecules. Memory is bounded in both. Megatron's own `IndexedDataset` reads one file, keeps
arrays of all its molecules, and unmaps them under those who still use them; its import takes seconds in each process, so its files are
written here too.
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

__all__ = ["BlockShards", "LocalShards", "ShardTable", "write_shard"]

_HEADER = struct.Struct("<9sQBQQ")  # of .idx: magic, version, code of the dtype, number of sequences, of documents + 1
_MAGIC = b"MMIDIDX\0\0"
_LARGE_VOCABULARY = 65_500  # from here on Megatron takes 4 bytes for an id
_DTYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_LENGTH = 4  # bytes in .idx of a molecule's number of tokens
_START = 8  # and, after all of those, of the byte where it starts in .bin
_PAGE = 4096  # bytes that a disk reads for one of them
_SPAN = 4 << 20  # molecules of a shard whose lengths may be read at once: 16 MB
_BLOCKS_AT_ONCE = 64

Tokens = NDArray[np.integer]


def write_shard(prefix: Path, tokens: NDArray[np.integer], lengths: NDArray[np.int64], vocabulary_size: int) -> list[Path]:
    """Writes one shard as Megatron's `IndexedDatasetBuilder` would, with a document for each molecule.

    Args:
        prefix: Path of its files without their suffixes.
        tokens: The ids of all molecules, one after the other.
        lengths: [N], how many ids each has.
        vocabulary_size: Decides how many bytes an id takes.

    Returns:
        The files: `.bin` and `.idx`.
    """
    code = 8 if vocabulary_size < _LARGE_VOCABULARY else 4
    content, index = (prefix.with_name(f"{prefix.name}.{kind}") for kind in ("bin", "idx"))
    tokens.astype(_DTYPES[code]).tofile(content)
    stops = np.cumsum(lengths, dtype="<i8") * _DTYPES[code].itemsize
    with index.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, 1, code, len(lengths), len(lengths) + 1))
        for part in (lengths.astype("<i4"), stops - lengths * _DTYPES[code].itemsize, np.arange(len(lengths) + 1, dtype="<i8")):
            file.write(part.astype(part.dtype.newbyteorder("<")).tobytes())
    return [content, index]


def _dtype_of(header: bytes, place: str, molecules: int) -> np.dtype[Any]:
    """What `.bin` holds, from the first bytes of `.idx`."""
    magic, version, code, count, _ = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0, 0, 0)
    if (magic, version) != (_MAGIC, 1) or code not in _DTYPES:
        known = " or ".join(map(str, _DTYPES.values()))
        raise DataError(f"{place} is not an index of Megatron's, version 1, with {known}: prepare it again.")
    if count != molecules:
        raise DataError(f"{place} tells of {count} molecules, but the manifest of {molecules}: prepare the folder again.")
    return _DTYPES[code]


class ShardTable:
    """Which molecules are in which shard.

    Args:
        shards: As the manifest lists them: `name` and number of `molecules`.
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
        """The shards of molecules, and their places in these: each int64 [P].

        Raises:
            IndexError: There is no such molecule.
        """
        outside = (indices < 0) | (indices >= self.molecules)
        if outside.any():
            raise IndexError(f"molecule {indices[outside][0]} of {self.molecules}")
        shards = np.searchsorted(self.stops, indices, side="right")
        return shards, indices - self.starts[shards]

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Molecules `start` to `stop`, shard by shard: number of the shard, first place and place after the last."""
        shard = int(np.searchsorted(self.stops, start, side="right"))
        while start < stop:
            begin, end = int(self.starts[shard]), min(stop, int(self.stops[shard]))
            if start < end:
                yield shard, start - begin, end - begin
            start, shard = end, shard + 1


class _Handle:
    """An open file, which closes with the object."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class LocalShards:
    """Molecules of shards on a disk. A quarter of the files that a process may open stay open, the others are opened when needed."""

    def __init__(self, path: Path, table: ShardTable) -> None:
        self._path, self.table = path, table
        self._open: dict[tuple[int, str], _Handle] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._kept = (1024 if limit == resource.RLIM_INFINITY else limit) // 4  # a process has a few stores
        self._dtypes: dict[int, np.dtype[Any]] = {}  # of the shards whose header was read

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalShards, (self._path, self.table)

    def _file(self, shard: int, kind: str) -> str:
        return f"{self._path}/{self.table.names[shard]}.{kind}"

    def _handle(self, shard: int, kind: str) -> _Handle:
        handle = self._open.get((shard, kind))
        if handle is None:
            try:
                handle = _Handle(os.open(self._file(shard, kind), os.O_RDONLY))
            except FileNotFoundError as error:
                raise DataError(f"{error.filename} is missing: prepare or copy the folder again.") from error
            if shard not in self._dtypes and kind == "idx":
                header = os.pread(handle.number, _HEADER.size, 0)
                self._dtypes[shard] = _dtype_of(header, self._file(shard, kind), self.table.counts[shard])
            if len(self._open) < self._kept:
                self._open[shard, kind] = handle
        return handle

    def lengths(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """The numbers of tokens, int32 [P]."""
        found = np.empty(len(indices), np.int32)
        order = np.argsort(indices)
        shards, places = self.table.locate(indices[order])
        for chosen in _runs(shards, places // _SPAN):
            index = self._handle(int(shards[chosen.start]), "idx")
            found[order[chosen]] = _read_lengths(index.number, places[chosen])
        return found

    def gather(self, indices: NDArray[np.int64]) -> list[Tokens]:
        """The tokens of each molecule."""
        found: dict[int, Tokens] = {}
        order = np.argsort(indices)
        shards, places = self.table.locate(indices[order])
        for chosen in _runs(shards):
            shard = int(shards[chosen.start])
            index, content = self._handle(shard, "idx"), self._handle(shard, "bin")
            for i, place in zip(order[chosen].tolist(), places[chosen].tolist()):
                found[i] = self._tokens(shard, place, index.number, content.number)
        return [found[i] for i in range(len(found))]

    def _tokens(self, shard: int, place: int, index: int, content: int) -> Tokens:
        """The tokens of a molecule, which end where the next one's start."""
        bounds = os.pread(index, 2 * _START, _HEADER.size + _LENGTH * self.table.counts[shard] + _START * place)
        start, stop = int.from_bytes(bounds[:_START], "little"), int.from_bytes(bounds[_START:], "little")
        if place == self.table.counts[shard] - 1:
            stop = os.fstat(content).st_size
        found = os.pread(content, stop - start, start) if start < stop else b""
        if not found or len(found) != stop - start:
            raise DataError(f"{self._file(shard, 'bin')} does not hold its molecule {place}: prepare or copy the folder again.")
        return np.frombuffer(found, self._dtypes[shard])


def _runs(*keys: NDArray[np.int64]) -> list[slice]:
    """Where the keys stay as they are."""
    changes = np.any([np.diff(key) != 0 for key in keys], axis=0).nonzero()[0] + 1
    bounds = [0, *changes.tolist(), len(keys[0])]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds) if start < stop]


def _read_lengths(index: int, places: NDArray[np.int64]) -> NDArray[np.int32]:
    """Of molecules in ascending order: read at once where they are as dense as one on a page, else one by one."""
    first, last = int(places[0]), int(places[-1])
    if last - first < _PAGE // _LENGTH * len(places):
        return np.frombuffer(os.pread(index, _LENGTH * (last + 1 - first), _HEADER.size + _LENGTH * first), "<i4")[places - first]
    offsets = (_HEADER.size + _LENGTH * places).tolist()
    return np.frombuffer(b"".join([os.pread(index, _LENGTH, offset) for offset in offsets]), "<i4")


class _Block:
    """Consecutive molecules: their lengths, the parts of files that hold their tokens, and these once they were read."""

    def __init__(self, lengths: NDArray[np.int32], parts: list[ByteRange], dtype: np.dtype[Any]) -> None:
        self.lengths, self.parts, self.dtype = lengths, parts, dtype
        self.stops = np.cumsum(lengths, dtype=np.int64)
        self.tokens: Tokens | None = None

    @property
    def bytes(self) -> int:
        return self.lengths.nbytes + self.stops.nbytes + (0 if self.tokens is None else self.tokens.nbytes)


class BlockShards:
    """Molecules of shards that are far away: read in blocks of consecutive ones, and kept while there is room.

    Args:
        folder: Where they are.
        table: Which they are.
        block: Molecules in a block.
        room: Bytes of blocks that are kept.
    """

    def __init__(self, folder: Folder, table: ShardTable, block: int, room: int = 256 << 20) -> None:
        self._folder, self.table, self._size, self._room = folder, table, block, room
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._dtypes: dict[int, np.dtype[Any]] = {}  # of the shards whose header was read
        self._used = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockShards, (self._folder, self.table, self._size, self._room)

    def lengths(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """The numbers of tokens, int32 [P]."""
        found = np.empty(len(indices), np.int32)
        for block, number, chosen in self._visit(indices, tokens=False):
            found[chosen] = block.lengths[indices[chosen] - number * self._size]
        return found

    def gather(self, indices: NDArray[np.int64]) -> list[Tokens]:
        """The tokens of each molecule."""
        found: dict[int, Tokens] = {}
        for block, number, chosen in self._visit(indices, tokens=True):
            assert block.tokens is not None
            places = indices[chosen] - number * self._size
            stops = block.stops[places]
            for i, start, stop in zip(chosen.tolist(), (stops - block.lengths[places]).tolist(), stops.tolist()):
                found[i] = block.tokens[start:stop].copy()  # a view would keep the block
        return [found[i] for i in range(len(indices))]

    def _visit(self, indices: NDArray[np.int64], *, tokens: bool) -> Iterator[tuple[_Block, int, NDArray[np.int64]]]:
        """The blocks of these molecules: each with its number, and which of `indices` lie in it."""
        self.table.locate(indices)
        numbers = indices // self._size
        order = np.argsort(numbers, kind="stable")
        groups = [order[chosen] for chosen in _runs(numbers[order])]
        for first in range(0, len(groups), _BLOCKS_AT_ONCE):
            wanted = {int(numbers[group[0]]): group for group in groups[first : first + _BLOCKS_AT_ONCE]}
            for number, block in self._read(list(wanted), tokens=tokens).items():
                yield block, number, wanted[number]

    def _read(self, numbers: list[int], *, tokens: bool) -> dict[int, _Block]:
        """These blocks, from the cache or else by two rounds of requests: one for lengths, one for tokens."""
        blocks = self._read_lengths([number for number in numbers if number not in self._blocks])
        for number in numbers:
            if number in self._blocks:
                blocks[number] = self._blocks.pop(number)
                self._used -= blocks[number].bytes
        bare = [block for block in blocks.values() if block.tokens is None] if tokens else []
        contents = iter(self._folder.parts([part for block in bare for part in block.parts]))
        for block in bare:
            block.tokens = np.frombuffer(b"".join(next(contents) for _ in block.parts), block.dtype)
        for number, block in blocks.items():
            self._blocks[number] = block
            self._used += block.bytes
        while self._used > self._room and self._blocks:
            self._used -= self._blocks.popitem(last=False)[1].bytes
        return blocks

    def _read_lengths(self, numbers: list[int]) -> dict[int, _Block]:
        pieces = {
            number: list(self.table.cut(number * self._size, min((number + 1) * self._size, self.table.molecules)))
            for number in numbers
        }
        unknown = sorted({shard for cut in pieces.values() for shard, _, _ in cut} - set(self._dtypes))
        wanted = [ByteRange(f"{self.table.names[shard]}.idx", 0, _HEADER.size) for shard in unknown]
        for shard, first, stop in (piece for cut in pieces.values() for piece in cut):
            index, starts_at = f"{self.table.names[shard]}.idx", _HEADER.size + _LENGTH * self.table.counts[shard]
            wanted.append(ByteRange(index, _HEADER.size + _LENGTH * first, _HEADER.size + _LENGTH * stop))
            wanted.append(ByteRange(index, starts_at + _START * first, starts_at + _START * (first + 1)))
        contents = iter(self._folder.parts(wanted))
        for shard in unknown:
            place = self._folder.place(f"{self.table.names[shard]}.idx")
            self._dtypes[shard] = _dtype_of(next(contents), place, self.table.counts[shard])
        return {number: self._block(cut, contents) for number, cut in pieces.items()}

    def _block(self, cut: list[tuple[int, int, int]], contents: Iterator[bytes]) -> _Block:
        lengths, parts = [], []
        for shard, _, _ in cut:
            lengths.append(np.frombuffer(next(contents), "<i4"))
            start = int.from_bytes(next(contents), "little")  # the others follow without a gap: Megatron writes running sums
            size = int(lengths[-1].sum(dtype=np.int64)) * self._dtypes[shard].itemsize
            parts.append(ByteRange(f"{self.table.names[shard]}.bin", start, start + size))
        return _Block(np.concatenate(lengths), parts, self._dtypes[cut[0][0]])
