"""A model in a file that processes map into memory: they share its weights, which are in memory once. Imports no torch itself."""

from __future__ import annotations

import io
import mmap
import pickle
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

__all__ = ["read_shared", "write_shared"]

_ALIGNED = 64  # bytes: a place where any type of number may begin


class _Pickler(pickle.Pickler):
    """Puts the bytes of weights into buffers of their own."""

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor:
            return NotImplemented
        numbers = value.detach().cpu().contiguous()
        array = numbers.view(-1).view(torch.uint8).numpy() if numbers.numel() else numbers.new_empty(0, dtype=torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(array), value.dtype, tuple(value.shape))


def _tensor(content: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.frombuffer(content, dtype=dtype).view(shape) if len(memoryview(content)) else torch.empty(shape, dtype=dtype)


def write_shared(model: Any, path: Path) -> None:
    """Writes a model for `read_shared` in other processes of the same user and installation. Its weights are on the CPU there."""
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as stream:
        _Pickler(stream, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append).dump(model)
        pickled = stream.getvalue()
    raw = [buffer.raw() for buffer in buffers]
    starts = list(accumulate((_round(len(one)) for one in raw), initial=0))
    head = pickle.dumps((pickled, [(start, len(one)) for start, one in zip(starts, raw)]))
    with path.open("wb") as file:
        file.write(len(head).to_bytes(_ALIGNED, "little"))
        for block in (memoryview(head), *raw):
            file.write(block)
            file.write(bytes(_round(len(block)) - len(block)))


def read_shared(path: Path) -> Any:
    """Reads a model that `write_shared` wrote. A process that changes a weight has its own copy of that page."""
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    length = int.from_bytes(content[:_ALIGNED], "little")
    pickled, places = pickle.loads(content[_ALIGNED : _ALIGNED + length])
    first = _ALIGNED + _round(length)
    return pickle.loads(pickled, buffers=[content[first + start : first + start + size] for start, size in places])


def _round(size: int) -> int:
    return -size % _ALIGNED + size
