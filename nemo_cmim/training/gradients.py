"""fp32 master weights, and gradients in fp32: accumulated, averaged over ranks, clipped.

Megatron-Core's classes for this (`distributed`, `optimizer`) need CUDA; these also run over gloo. A parameter in half precision has a
master weight in fp32, which the optimiser updates. A parameter in fp32 is its own master weight.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from ..mcore.parallel import is_sharded

__all__ = ["Gradients", "MasterWeights"]

_BUCKET = 6_000_000  # elements: 24 MB of fp32, as in torch's DDP


class MasterWeights:
    """The fp32 weights that the optimiser updates.

    Args:
        parameters: The network's parameters by name, on their device and in fp32; converted in place to `dtype`.
        dtype: Type of the parameters in forward and backward.

    Attributes:
        network: The network's parameters by name.
        master: The master weights by the same names.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> None:
        self.network = dict(parameters)
        self.master: dict[str, nn.Parameter] = {}
        for name, parameter in self.network.items():
            if dtype == torch.float32:
                self.master[name] = parameter
                continue
            master = nn.Parameter(parameter.detach().clone())
            for attribute in ("tensor_model_parallel", "partition_dim"):  # by which Megatron marks a sharded weight
                if hasattr(parameter, attribute):
                    setattr(master, attribute, getattr(parameter, attribute))
            self.master[name] = master
            parameter.data = parameter.data.to(dtype)

    def attach_to(self, optimizer: Optimizer) -> None:
        """Replaces the network's parameters in an optimiser by the master weights. The optimiser must not have taken a step."""
        master_of = {parameter: self.master[name] for name, parameter in self.network.items()}
        for group in optimizer.param_groups:
            group["params"] = [master_of[parameter] for parameter in group["params"]]

    def update_network(self) -> None:
        """Copies the master weights to the network, rounded to its precision."""
        rounded = [name for name, parameter in self.network.items() if self.master[name] is not parameter]
        if rounded:
            with torch.no_grad():
                torch._foreach_copy_([self.network[name] for name in rounded], [self.master[name] for name in rounded])


class _Bucket:
    """Gradients that one all-reduce averages."""

    def __init__(self, members: list[tuple[nn.Parameter, nn.Parameter]], sharded: bool) -> None:
        self.members, self.sharded = members, sharded
        size = sum(master.numel() for _, master in members)
        self.flat = torch.zeros(size, dtype=torch.float32, device=members[0][1].device)
        self.views = [
            part.view_as(master) for part, (_, master) in zip(self.flat.split([master.numel() for _, master in members]), members)
        ]
        self.filled = [False] * len(members)  # has a gradient since the last step
        self.missing = len(members)  # gradients that this backward pass has not computed yet
        self.work: torch.distributed.Work | None = None


class Gradients:
    """Accumulates gradients in fp32 as backward computes them, and averages them over ranks during backward.

    All ranks reduce the buckets in the same order. Either all parameters of a bucket are sharded over tensor-parallel ranks, or none is.

    Args:
        parameters: The network's parameters, which get hooks, and the master weights.
        data_parallel: Ranks whose gradients are averaged.
        tensor_parallel: Ranks that hold the shards of one network.

    Attributes:
        is_last_micro_batch: Whether the next backward pass completes the gradients of the step, so that they can be averaged.
        loss_scale: Factor by which the loss is multiplied before backward.
        waited_s: Seconds of communication in the last step that backward did not hide.
        norm: Norm of the gradients of the last step over the complete network, before clipping.
    """

    def __init__(self, parameters: MasterWeights, data_parallel: ProcessGroup, tensor_parallel: ProcessGroup) -> None:
        self.is_last_micro_batch = True
        self.loss_scale = 1.0
        self.waited_s = 0.0
        self.norm = torch.zeros(())
        self._data_parallel, self._ranks = data_parallel, torch.distributed.get_world_size(data_parallel)
        self._tensor_parallel, self._shards = tensor_parallel, torch.distributed.get_world_size(tensor_parallel)
        self._buckets = _make_buckets(parameters)
        self._launched = 0
        for bucket in self._buckets:
            for index, (parameter, _) in enumerate(bucket.members):
                parameter.register_post_accumulate_grad_hook(functools.partial(self._collect, bucket, index))

    def _collect(self, bucket: _Bucket, index: int, parameter: nn.Parameter) -> None:
        """Adds the gradient that backward has just accumulated in a parameter to its bucket."""
        assert parameter.grad is not None  # torch calls this hook after it has set the gradient
        gradient, view = parameter.grad, bucket.views[index]
        factor = 1.0 / (self._ranks * self.loss_scale)
        if bucket.filled[index]:
            view.add_(gradient, alpha=factor)
        elif gradient.dtype == view.dtype:
            torch.mul(gradient, factor, out=view)
        else:  # scaled in fp32: in half precision, small gradients would vanish
            view.copy_(gradient).mul_(factor)
        bucket.filled[index] = True
        parameter.grad = None
        if self.is_last_micro_batch:
            bucket.missing -= 1
            self._launch_complete_buckets()

    def _launch_complete_buckets(self) -> None:
        while self._launched < len(self._buckets) and self._buckets[self._launched].missing == 0:
            self._launch(self._buckets[self._launched])

    def _launch(self, bucket: _Bucket) -> None:
        self._launched += 1
        for index, view in enumerate(bucket.views):
            if not bucket.filled[index]:
                view.zero_()
        if self._ranks > 1:
            bucket.work = torch.distributed.all_reduce(bucket.flat, group=self._data_parallel, async_op=True)

    def finish(self) -> Tensor:
        """Waits for the averages and sets them as `.grad` of the master weights.

        Returns:
            Their norm over the complete network. If any gradient of any rank is not finite, the norm is not finite on any rank.
        """
        for bucket in self._buckets[self._launched :]:  # those with parameters that the loss does not depend on
            self._launch(bucket)
        start = time.perf_counter()
        for bucket in self._buckets:
            if bucket.work is not None:
                bucket.work.wait()
                bucket.work = None
        self.waited_s = time.perf_counter() - start
        for bucket in self._buckets:
            for view, (_, master) in zip(bucket.views, bucket.members):
                master.grad = view
            bucket.filled = [False] * len(bucket.members)
            bucket.missing = len(bucket.members)
        self._launched = 0
        self.norm = self._compute_norm()
        return self.norm

    def _compute_norm(self) -> Tensor:
        device = self._buckets[0].flat.device
        replicated, shards = torch.zeros((), device=device), torch.zeros((), device=device)
        for bucket in self._buckets:
            squared = torch.linalg.vector_norm(bucket.flat).square()
            if bucket.sharded:
                shards += squared
            else:
                replicated += squared
        if self._shards > 1:
            both = torch.stack([shards, replicated / self._shards])  # replicas agree, unless one overflowed
            torch.distributed.all_reduce(both, group=self._tensor_parallel)
            return both.sum().sqrt()
        return (shards + replicated).sqrt()

    def clip(self, largest: float) -> None:
        """Scales the gradients of the last step so that their norm is at most `largest`. Does not wait for a GPU."""
        factor = (largest / self.norm).clamp(max=1.0)
        for bucket in self._buckets:
            bucket.flat.mul_(factor)


def _make_buckets(parameters: MasterWeights) -> list[_Bucket]:
    """Buckets of about `_BUCKET` elements in the order in which backward completes them: the reverse order of the parameters."""
    buckets: list[_Bucket] = []
    gathered: dict[bool, list[tuple[nn.Parameter, nn.Parameter]]] = {True: [], False: []}
    for name, master in reversed(parameters.master.items()):
        members = gathered[is_sharded(master)]
        members.append((parameters.network[name], master))
        if sum(m.numel() for _, m in members) >= _BUCKET:
            buckets.append(_Bucket(list(members), is_sharded(master)))
            members.clear()
    return buckets + [_Bucket(members, sharded) for sharded, members in gathered.items() if members]
