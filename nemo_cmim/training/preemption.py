"""A scheduler's notice that the job must end."""

from __future__ import annotations

import signal
from types import FrameType

import torch

from ..signals import PREEMPTION_SIGNALS

__all__ = ["Preempted", "Preemption"]


class Preempted(SystemExit):
    """The run has saved its state and ends because a signal asked it to; the same command goes on with it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)  # whatever the signal, so that batch files know when to requeue


class Preemption:
    """Remembers a signal of `PREEMPTION_SIGNALS`."""

    def __init__(self) -> None:
        self._received = 0

    def listen(self) -> None:
        """Takes the signals over from whoever handled them (main thread only)."""
        for number in PREEMPTION_SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def agreed(self, device: torch.device) -> int:
        """The number of a signal that any rank has received, else 0. A collective call; all ranks get the same."""
        received = torch.tensor(self._received, device=device)
        if torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        return int(received)
