"""The matrix multiplications of a computation, and the same ones alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["RecordProducts", "Shapes", "operations", "plain_products", "with_backward"]

Shapes = Counter[tuple[int, int, int, int]]
"""How often there is a product of [batch, rows, inner] and [batch, inner, columns], by (batch, rows, inner, columns)."""


class RecordProducts(TorchDispatchMode):
    """Counts the matrix multiplications in this context by their shape. Use it in inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Shapes = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Records a matrix multiplication, then runs it."""
        with self:  # `linear`, `einsum` and attention are single operations in inference mode: decompose them
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "addmm_", "baddbmm"):
            a, b = args[-2:]
            self.shapes[len(a) if a.dim() == 3 else 1, a.shape[-2], a.shape[-1], b.shape[-1]] += 1
        elif "scaled_dot_product" in name:
            query, key = args[:2]
            batch, rows, inner, columns = query.shape[0] * query.shape[1], query.shape[2], query.shape[3], key.shape[2]
            self.shapes[batch, rows, inner, columns] += 1
            self.shapes[batch, rows, columns, inner] += 1
        return func(*args, **(kwargs or {}))


def operations(shapes: Shapes) -> int:
    """Floating-point operations of all products."""
    return sum(2 * count * batch * m * k * n for (batch, m, k, n), count in shapes.items())


def with_backward(shapes: Shapes) -> Shapes:
    """Adds the two products of each product's backward pass."""
    every: Shapes = Counter()
    for (batch, m, k, n), count in shapes.items():
        for shape in ((batch, m, k, n), (batch, m, n, k), (batch, k, m, n)):
            every[shape] += count
    return every


def plain_products(shapes: Shapes, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """Returns a function that runs `torch.mm` or `torch.bmm` for each counted shape, on preallocated operands."""
    operands = {}
    for shape in shapes:
        batch, rows, inner, columns = shape
        a = torch.randn(batch, rows, inner, device=device, dtype=dtype)
        b = torch.randn(batch, columns, inner, device=device, dtype=dtype).transpose(1, 2)
        operands[shape] = (a, b) if batch > 1 else (a[0], b[0])

    def run() -> None:
        for shape, count in shapes.items():
            a, b = operands[shape]
            product = torch.bmm if shape[0] > 1 else torch.mm
            for _ in range(count):
                product(a, b)

    return run
