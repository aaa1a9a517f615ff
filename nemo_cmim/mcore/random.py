"""Random numbers of a training step, as a function of (seed, step, micro-batch): the one place that seeds generators.

Nothing has to be saved to go on where a run stopped, at another number of devices too: what a micro-batch draws does not depend on
which rank computes it, nor on what was drawn before.
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
    """Seeds torch's default generators alike on all tensor-parallel ranks, and one that differs from rank to rank.

    Latent noise and the dropout of hidden states come from the former: ranks must agree on them. The dropout of attention comes from
    the latter, as ranks have different heads.

    Args:
        key: Names the place in the run; another key gives other numbers.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    torch.manual_seed(seed)
    _of_this_rank.manual_seed(seed + 1 + parallel_state.get_tensor_model_parallel_rank())
    if runs_on_gpu():
        model_parallel_cuda_manual_seed(seed % 2**31)


@contextmanager
def tensor_parallel_rng() -> Generator[None, None, None]:
    """Within it, default generators draw what differs from one tensor-parallel rank to the next."""
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
