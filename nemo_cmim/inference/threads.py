"""Number of threads for computations. Does not import torch, but follows it where it is imported."""

from __future__ import annotations

import os
import sys

from ..cores import available_cores

__all__ = ["limit_threads", "thread_count"]

_VARIABLE = "OMP_NUM_THREADS"


def thread_count() -> int:
    """As many as torch uses: what it was told, `OMP_NUM_THREADS`, or one on each core that this process may use."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    told = os.environ.get(_VARIABLE, "").split(",")[0]
    return int(told) if told.isdigit() and int(told) else available_cores()


def limit_threads(count: int) -> None:
    """Limits the threads of computations that begin after this call."""
    os.environ[_VARIABLE] = str(count)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
