"""Ending a process in an orderly way when a signal asks for it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PREEMPTION_SIGNALS", "sigterm_raises"]

PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""The signals by which a scheduler announces that a job will end. They go to whole process groups. The workers of loaders ignore them,
except a SIGTERM that the main process sends, because the main process decides what they mean and ends its workers."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within it (main thread only), SIGTERM raises SystemExit, so that child processes are ended; afterwards it is handled as before."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: a handler that is not Python's
