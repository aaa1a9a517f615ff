"""Seeds the generators of a training step, as a function of (seed, step, micro-batch); no other module seeds generators.

A checkpoint does not need the state of generators, even if a run resumes on a different number of devices: the random numbers of a
micro-batch depend neither on the rank that computes it nor on earlier random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker, model_parallel_cuda_manual_seed

from .parallel import runs_on_gpu

__all__ = ["seed_generators", "tensor_parallel_rng"]

_of_this_rank = torch.Generator()


def seed_generators(*key: int | str) -> None:
    """Seeds torch's default generators equally on all tensor-parallel ranks, and one generator differently on each rank.

    Latent noise and the dropout of hidden states use the default generators, since they must be equal on all ranks. The dropout of
    attention uses the other one, since ranks have different heads.

    Args:
        key: Identifies the position in the run; different keys give different numbers.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    torch.manual_seed(seed)
    _of_this_rank.manual_seed(seed + 1 + parallel_state.get_tensor_model_parallel_rank())
    if runs_on_gpu():
        model_parallel_cuda_manual_seed(seed % 2**31)


@contextmanager
def tensor_parallel_rng() -> Generator[None, None, None]:
    """Within the block, the default generators draw numbers that differ between tensor-parallel ranks."""
    if runs_on_gpu():
        with get_cuda_rng_tracker().fork():
            yield
        return
    shared = torch.get_rng_state()
    torch.set_rng_state(_of_this_rank.get_state())
    try:
        yield
    finally:
        _of_this_rank.set_state(torch.get_rng_state())
        torch.set_rng_state(shared)
