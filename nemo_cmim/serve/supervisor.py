"""Several processes that share a socket: starts them, starts one again that has ended, and ends all of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .settings import ServeSettings

__all__ = ["supervise"]

_log = logging.getLogger("nemo_cmim.serve")
_PATIENCE_S = 60.0  # a process that ends sooner than this, several times in a row, will not run at all
_MOST_FAILURES = 5
_SPAWN = multiprocessing.get_context("spawn")


def supervise(settings: ServeSettings, listening: socket.socket) -> int | None:
    """Serves with `settings.workers` processes until SIGTERM or SIGINT.

    Returns:
        The signal; None if the processes cannot be started.
    """
    with _counters() as folder:
        supervisor = _Supervisor(settings, listening, folder)
        with supervisor.signals():
            return supervisor.run()


@contextmanager
def _counters() -> Iterator[str]:
    """A folder in which the processes share their counters."""
    folder = tempfile.mkdtemp(prefix="nemo_cmim-serve-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Supervisor:
    def __init__(self, settings: ServeSettings, listening: socket.socket, folder: str) -> None:
        self._settings, self._listening, self._folder = settings, listening, folder
        self._are_ready: Any = _SPAWN.Array("b", settings.workers, lock=False)
        self._processes: dict[int, BaseProcess] = {}
        self._started: dict[int, float] = {}
        self._failures = 0
        self._got: int | None = None
        self._wake_in, self._wake_out = os.pipe()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Context in which SIGTERM and SIGINT end all processes."""

        def handle(number: int, frame: Any) -> None:
            self._got = number
            os.write(self._wake_out, b"x")

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def run(self) -> int | None:
        """Runs until a signal, or until processes fail again and again."""
        for slot in range(self._settings.workers):
            self._start(slot)
        while self._got is None and self._failures < _MOST_FAILURES:
            wait([self._wake_in, *(process.sentinel for process in self._processes.values())])
            for slot, process in list(self._processes.items()):
                if self._got is None and not process.is_alive():
                    self._restart(slot, process)
        self._listening.close()
        self._end()
        return self._got

    def _start(self, slot: int) -> None:
        process = _SPAWN.Process(target=_serve, args=(self._settings, self._listening, self._are_ready, slot, self._folder))
        process.start()
        self._processes[slot], self._started[slot] = process, time.monotonic()

    def _restart(self, slot: int, process: BaseProcess) -> None:
        from prometheus_client import multiprocess

        was_ready, self._are_ready[slot] = self._are_ready[slot], 0
        _log.error("process %s ended with %s; starting another one", process.pid, process.exitcode)
        multiprocess.mark_process_dead(process.pid, self._folder)
        is_early = not was_ready and time.monotonic() - self._started[slot] < _PATIENCE_S
        self._failures = self._failures + 1 if is_early else 0
        if is_early:
            time.sleep(min(2.0 ** (self._failures - 3), 5.0))
        if self._failures < _MOST_FAILURES and self._got is None:
            self._start(slot)

    def _end(self) -> None:
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()  # SIGTERM: it drains
        limit = time.monotonic() + self._settings.drain + 10
        for process in self._processes.values():
            process.join(max(0.0, limit - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _serve(settings: ServeSettings, listening: socket.socket, are_ready: Any, slot: int, folder: str) -> None:
    """One of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent passes it on as SIGTERM
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    _end_with_parent()
    from .run import run, set_up_log

    set_up_log()

    def all_ready(is_ready: bool) -> bool:
        are_ready[slot] = is_ready
        return all(are_ready)

    try:
        run(settings, listening, all_ready)
    except (OSError, ValueError) as error:
        _log.error("%s", error)
        raise SystemExit(2) from None


def _end_with_parent() -> None:
    """Sends this process SIGTERM if its parent is killed, on Linux."""
    if not Path("/proc/self").exists():
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
