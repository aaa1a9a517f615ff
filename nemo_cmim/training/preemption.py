"""Signals by which a scheduler announces that the job will end."""

from __future__ import annotations

import signal
from types import FrameType

import torch

from ..signals import PREEMPTION_SIGNALS

__all__ = ["Preempted", "Preemption"]


class Preempted(SystemExit):
    """Raised when a run ends after a signal. Its state is saved, and the same command resumes it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)  # the same for every signal: batch files requeue the job at this status


class Preemption:
    """Records a signal of `PREEMPTION_SIGNALS`."""

    def __init__(self) -> None:
        self._received = 0

    def listen(self) -> None:
        """Replaces the handlers of the signals. Works only in the main thread."""
        for number in PREEMPTION_SIGNALS:
            signal.signal(number, self._record)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def agreed(self, device: torch.device) -> int:
        """The number of a signal that any rank has received, or 0. A collective call; the result is the same on all ranks."""
        received = torch.tensor(self._received, device=device)
        if torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        return int(received)
