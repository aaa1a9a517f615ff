"""Signals that end a process."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PREEMPTION_SIGNALS", "sigint_raises", "sigterm_raises"]

PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""The signals by which a scheduler announces that a job will end. It sends them to all processes of a process group. The main process
handles them and ends its loader workers; the workers ignore them, except a SIGTERM from the main process."""

_FORWARDED = signal.SIGRTMAX - 1  # what SIGINT becomes, see `sigint_raises`


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


@contextmanager
def sigint_raises() -> Iterator[None]:
    """Context in which SIGINT raises KeyboardInterrupt, also while RDKit runs.

    Changes nothing outside the main thread, or if SIGINT is ignored.
    RDKit replaces the handler of SIGINT while it searches for substructures. The search then stops with an incomplete result, and no
    exception is raised. Here SIGINT is blocked, in child processes too. A thread waits for it and sends the main thread a different signal.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not is_default:
        yield
        return
    main, is_over = threading.get_ident(), threading.Event()

    def forward() -> None:
        while signal.sigwait({signal.SIGINT}) and not is_over.is_set():
            signal.pthread_kill(main, _FORWARDED)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = signal.signal(_FORWARDED, signal.default_int_handler)
    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        signal.pthread_kill(thread.ident or 0, signal.SIGINT)
        thread.join()
        signal.signal(_FORWARDED, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
