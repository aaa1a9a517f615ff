"""A long computation that is done in steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Pause", "Steps"]

Pause = Callable[[], None]
"""Called between the steps of a long computation; it returns when the next step may begin. It may raise `Dropped`."""


class Steps:
    """A computation in a thread of its own, which runs only while `next` waits for it.

    The model is therefore used by one thread at a time, and other requests can be computed between two steps.

    Args:
        compute: The computation; it must not raise an error. It calls its argument between its steps.

    Attributes:
        result: What it returned.
    """

    def __init__(self, compute: Callable[[Pause], Any]) -> None:
        self.result: Any = None
        self._compute, self._has_ended = compute, False
        self._may_run, self._is_paused = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, name="steps", daemon=True).start()

    def next(self) -> bool:
        """Runs the next step; True if it was the last one."""
        self._may_run.release()
        self._is_paused.acquire()
        return self._has_ended

    def _run(self) -> None:
        self._may_run.acquire()
        try:
            self.result = self._compute(self._pause)
        finally:  # an error here is a defect, but the worker must not wait for ever
            self._has_ended = True
            self._is_paused.release()

    def _pause(self) -> None:
        self._is_paused.release()
        self._may_run.acquire()
