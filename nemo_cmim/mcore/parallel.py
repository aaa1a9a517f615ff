"""The one place that starts process groups."""

from __future__ import annotations

import os

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from ..config import ParallelConfig
from ..errors import ConfigError

__all__ = ["initialise"]


def initialise(parallel: ParallelConfig, *, seed: int = 0) -> None:
    """Starts `torch.distributed` (NCCL on GPU, gloo on CPU) and Megatron's groups where they are not there yet.

    A single process needs no rendezvous; several take theirs from the environment that torchrun sets.

    Args:
        parallel: Sizes of the groups.
        seed: Seed of Megatron's generators on CUDA (there only; not run on a GPU yet).

    Raises:
        ConfigError: The groups exist with another tensor-parallel size.
    """
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            torch.distributed.init_process_group(backend)
        else:
            store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # missing in torch's stubs
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    size = parallel.tensor_model_parallel_size
    if not parallel_state.model_parallel_is_initialized():
        world = torch.distributed.get_world_size()
        if world % size:
            raise ConfigError(f"parallel.tensor_model_parallel_size ({size}) must divide the number of processes ({world}).")
        parallel_state.initialize_model_parallel(size)
        if torch.cuda.is_available():
            model_parallel_cuda_manual_seed(seed)
    elif parallel_state.get_tensor_model_parallel_world_size() != size:
        raise ConfigError(
            f"parallel.tensor_model_parallel_size is {size}, but this process already runs with "
            f"{parallel_state.get_tensor_model_parallel_world_size()}. Start a new process."
        )
