"""fp32 weights and gradients behind the network's parameters: accumulated, averaged over ranks, clipped.

Megatron-Core's own (`distributed`, `optimizer`) need CUDA; these run over gloo too. A parameter in half precision has a main parameter
in fp32, which the optimiser sees; a parameter in fp32 is its own.
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

_BUCKET = 6_000_000  # elements: 24 MB of fp32, as torch's DDP


class MasterWeights:
    """The fp32 weights that the optimiser updates.

    Args:
        parameters: The network's, by name, on their device and in fp32; converted in place to `dtype`.
        dtype: What forward and backward compute in.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> None:
        self.model = dict(parameters)
        self.main: dict[str, nn.Parameter] = {}
        for name, parameter in self.model.items():
            if dtype == torch.float32:
                self.main[name] = parameter
                continue
            main = nn.Parameter(parameter.detach().clone())
            for attribute in ("tensor_model_parallel", "partition_dim"):  # Megatron's marks of a sharded weight
                if hasattr(parameter, attribute):
                    setattr(main, attribute, getattr(parameter, attribute))
            self.main[name] = main
            parameter.data = parameter.data.to(dtype)

    def attach_to(self, optimizer: Optimizer) -> None:
        """Makes an optimiser that was built on the network's parameters, and has not taken a step, update the master weights."""
        main_of = {parameter: self.main[name] for name, parameter in self.model.items()}
        for group in optimizer.param_groups:
            group["params"] = [main_of[parameter] for parameter in group["params"]]

    def update_model(self) -> None:
        """Rounds the main weights into the network's."""
        with torch.no_grad():
            for name, parameter in self.model.items():
                if self.main[name] is not parameter:
                    parameter.copy_(self.main[name])


class _Bucket:
    """Gradients that are averaged by one all-reduce."""

    def __init__(self, members: list[tuple[nn.Parameter, nn.Parameter]], sharded: bool) -> None:
        self.members, self.sharded = members, sharded
        size = sum(main.numel() for _, main in members)
        self.flat = torch.zeros(size, dtype=torch.float32, device=members[0][1].device)
        self.views = [
            part.view_as(main) for part, (_, main) in zip(self.flat.split([main.numel() for _, main in members]), members)
        ]
        self.filled = [False] * len(members)  # has a gradient since the last step
        self.missing = len(members)  # gradients that this backward pass has not brought yet
        self.work: torch.distributed.Work | None = None


class Gradients:
    """Collects each gradient in fp32 as backward brings it, and averages over ranks while backward goes on.

    Buckets are reduced in one order on all ranks. All parameters of a bucket are sharded over tensor-parallel ranks, or none.

    Args:
        parameters: Main and model parameters; those of `model` get hooks.
        data_parallel: Ranks whose gradients are averaged.
        tensor_parallel: Ranks that hold the shards of one network.
    """

    def __init__(self, parameters: MasterWeights, data_parallel: ProcessGroup, tensor_parallel: ProcessGroup) -> None:
        self.is_last_micro_batch = True  # backward completes the gradients, so they can be reduced
        self.loss_scale = 1.0  # what the loss is multiplied by before backward
        self.waited_s = 0.0  # for communication that backward did not hide, in the last step
        self.norm = torch.zeros(())  # over the whole network, of the last step and before clipping
        self._data_parallel, self._ranks = data_parallel, torch.distributed.get_world_size(data_parallel)
        self._tensor_parallel, self._shards = tensor_parallel, torch.distributed.get_world_size(tensor_parallel)
        self._buckets = _make_buckets(parameters)
        self._launched = 0
        for bucket in self._buckets:
            for index, (parameter, _) in enumerate(bucket.members):
                parameter.register_post_accumulate_grad_hook(functools.partial(self._collect, bucket, index))

    def _collect(self, bucket: _Bucket, index: int, parameter: nn.Parameter) -> None:
        """Takes over the gradient that backward left at a parameter."""
        assert parameter.grad is not None
        gradient, view = parameter.grad, bucket.views[index]
        factor = 1.0 / (self._ranks * self.loss_scale)
        if bucket.filled[index]:
            view.add_(gradient, alpha=factor)
        elif gradient.dtype == view.dtype:
            torch.mul(gradient, factor, out=view)
        else:  # scaled in fp32: small gradients would vanish before
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
        """Waits for the averages and hands them to the main parameters as `.grad`.

        Returns:
            Their norm over the whole network; not finite, on all ranks alike, if any gradient of any rank is not.
        """
        for bucket in self._buckets[self._launched :]:  # with parameters that the loss does not depend on
            self._launch(bucket)
        start = time.perf_counter()
        for bucket in self._buckets:
            if bucket.work is not None:
                bucket.work.wait()
                bucket.work = None
        self.waited_s = time.perf_counter() - start
        for bucket in self._buckets:
            for view, (_, main) in zip(bucket.views, bucket.members):
                main.grad = view
            bucket.filled = [False] * len(bucket.members)
            bucket.missing = len(bucket.members)
        self._launched = 0
        self.norm = self._compute_norm()
        return self.norm

    def _compute_norm(self) -> Tensor:
        device = self._buckets[0].flat.device
        whole, shards = torch.zeros((), device=device), torch.zeros((), device=device)
        for bucket in self._buckets:
            squared = torch.linalg.vector_norm(bucket.flat).square()
            if bucket.sharded:
                shards += squared
            else:
                whole += squared
        if self._shards > 1:
            both = torch.stack([shards, whole / self._shards])  # replicas of `whole` agree, but for one that overflowed
            torch.distributed.all_reduce(both, group=self._tensor_parallel)
            return both.sum().sqrt()
        return (shards + whole).sqrt()

    def clip(self, largest: float) -> None:
        """Scales the gradients of the last step so that their norm is at most `largest`."""
        if self.norm > largest:
            for bucket in self._buckets:
                bucket.flat.mul_(largest / self.norm)


def _make_buckets(parameters: MasterWeights) -> list[_Bucket]:
    """Buckets of about `_BUCKET` elements, in the order in which backward completes them: that of the parameters, reversed."""
    buckets: list[_Bucket] = []
    gathered: dict[bool, list[tuple[nn.Parameter, nn.Parameter]]] = {True: [], False: []}
    for name, main in reversed(parameters.main.items()):
        members = gathered[is_sharded(main)]
        members.append((parameters.model[name], main))
        if sum(m.numel() for _, m in members) >= _BUCKET:
            buckets.append(_Bucket(list(members), is_sharded(main)))
            members.clear()
    return buckets + [_Bucket(members, sharded) for sharded, members in gathered.items() if members]
