"""Latents that an anchor is compared with: its batch, the batches of all data-parallel ranks, and a queue (Sec. 2.2.2).

Shape letters: B molecules of this rank, C candidates, M length of the queue, H = K * D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

__all__ = ["Candidates", "gather_with_gradient"]


class Candidates(nn.Module):
    """Collects candidates, and stores latents of earlier batches if it has a queue.

    The queue is part of the state dict, so that a resumed run has the same negatives as an uninterrupted run. Latents in the queue have
    no gradient.

    Args:
        width: H.
        queue: M, the number of latents in the queue; 0: no queue.
        group: Ranks whose latents are also candidates; None: only this rank.
    """

    queue_MH: Tensor
    filled: Tensor

    def __init__(self, width: int, *, queue: int = 0, group: ProcessGroup | None = None) -> None:
        super().__init__()
        self.group = group
        self.register_buffer("queue_MH", torch.zeros(queue, width), persistent=queue > 0)
        self.register_buffer(
            "filled", torch.zeros((), dtype=torch.long), persistent=queue > 0
        )  # number of rows in use, the newest first

    def forward(self, own_BH: Tensor) -> tuple[Tensor, int]:
        """Returns all candidates [C, H], and the index of the first one of this rank. The queue is used and updated in training only."""
        gathered_CH, first = (own_BH, 0) if self.group is None else gather_with_gradient(own_BH, self.group)
        if not (self.training and len(self.queue_MH)):
            return gathered_CH, first
        queued = self.queue_MH[: int(self.filled)].clone()
        self._enqueue(gathered_CH.detach())
        return torch.cat([gathered_CH, queued]), first

    def _enqueue(self, newest_CH: Tensor) -> None:
        size = len(self.queue_MH)
        self.queue_MH.copy_(torch.cat([newest_CH.to(self.queue_MH.dtype), self.queue_MH])[:size])
        self.filled.add_(len(newest_CH)).clamp_(max=size)


def gather_with_gradient(own_BH: Tensor, group: ProcessGroup) -> tuple[Tensor, int]:
    """Gathers the rows of all ranks in the order of ranks, [C, H]; also returns the index of the first row of this rank.

    Ranks may have different numbers of rows. Backward sums the gradients of a row over the losses of all ranks, so that the average of
    the gradients over ranks is the gradient of the average loss.
    """
    ranks, rank = torch.distributed.get_world_size(group), torch.distributed.get_rank(group)
    count = torch.tensor([len(own_BH)], device=own_BH.device)
    counts = [torch.empty_like(count) for _ in range(ranks)]
    torch.distributed.all_gather(counts, count, group=group)
    sizes = [int(c) for c in counts]
    return _Gather.apply(own_BH, sizes, group), sum(sizes[:rank])


class _Gather(torch.autograd.Function):
    """all_gather of rows. Backward is a reduce-scatter, computed with an all-reduce, which gloo supports."""

    @staticmethod
    def forward(ctx: Any, own_BH: Tensor, sizes: list[int], group: ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        padded = own_BH.new_zeros(max(sizes), *own_BH.shape[1:])
        padded[: len(own_BH)] = own_BH
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes)])

    @staticmethod
    def backward(ctx: Any, gradient_CH: Tensor) -> tuple[Tensor, None, None]:
        total = gradient_CH.contiguous().clone()
        torch.distributed.all_reduce(total, group=ctx.group)
        return total.split(ctx.sizes)[torch.distributed.get_rank(ctx.group)], None, None
