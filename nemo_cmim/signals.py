"""Signals that end a process."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PREEMPTION_SIGNALS", "sigterm_raises"]

PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""The signals by which a scheduler announces that a job will end. It sends them to all processes of a process group. The main process
handles them and ends its loader workers; the workers ignore them, except a SIGTERM from the main process."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Context in which SIGTERM raises SystemExit, so that `finally` blocks run. Changes nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():  # which alone can handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: a handler not set by Python
