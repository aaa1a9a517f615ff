"""Starts process groups; no other module does."""

from __future__ import annotations

import os

import torch
from megatron.core import parallel_state
from torch import Tensor

from ..config import ParallelConfig
from ..errors import ConfigError

__all__ = ["initialise", "is_sharded", "runs_on_gpu"]

_device = ""  # of this process; its groups cannot change it


def initialise(parallel: ParallelConfig, *, device: str = "cpu") -> None:
    """Starts `torch.distributed` (NCCL on GPU, gloo on CPU) and Megatron's groups, unless they exist.

    A single process needs no rendezvous; several processes use the environment variables that torchrun sets.

    Args:
        parallel: Sizes of the groups.
        device: Type of the device that the network runs on: "cuda" or "cpu".

    Raises:
        ConfigError: If the sizes do not match the number of processes, or if this process already runs on the other type of device or
            with another tensor-parallel size.
    """
    global _device
    if _device and _device != device:
        raise ConfigError(f"This process already runs on {_device}, and cannot change to {device}. Start a new process.")
    _device = device
    if not torch.distributed.is_initialized():
        backend = "nccl" if device == "cuda" else "gloo"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            torch.distributed.init_process_group(backend)
        else:
            store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # missing in torch's stubs
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    size = parallel.tensor_model_parallel_size
    if not parallel_state.model_parallel_is_initialized():
        world = torch.distributed.get_world_size()
        if world % size:
            raise ConfigError(
                f"parallel.tensor_model_parallel_size ({size}) must divide the number of processes ({world}), which is "
                "tensor-parallel x data-parallel ranks."
            )
        parallel_state.initialize_model_parallel(size)
    elif parallel_state.get_tensor_model_parallel_world_size() != size:
        raise ConfigError(
            f"parallel.tensor_model_parallel_size is {size}, but this process already runs with "
            f"{parallel_state.get_tensor_model_parallel_world_size()}. Start a new process."
        )


def is_sharded(parameter: Tensor) -> bool:
    """True if each tensor-parallel rank has a different part of the parameter, along `parameter.partition_dim`."""
    return bool(getattr(parameter, "tensor_model_parallel", False))


def runs_on_gpu() -> bool:
    """True if the network of this process runs on a GPU; False before `initialise`. Not tested on a GPU yet."""
    return _device == "cuda"
