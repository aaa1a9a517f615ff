"""Which signals end the workers of a loader, with real processes and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PATIENCE_S = 600.0  # until a test gives up; nothing waits so long unless it fails

# Prints its workers, reads a batch for each line of its input, and exits while the loader is in use.
SCRIPT = """
import multiprocessing, signal, sys
from nemo_cmim.config import DataConfig
from nemo_cmim.loader.dataset import PREEMPTION_SIGNALS, make_loader

for number in PREEMPTION_SIGNALS:
    signal.signal(number, lambda number, frame: None)  # as in training
batches = iter(make_loader(DataConfig(folder=sys.argv[1], batch_size=8, workers=2), steps=1000))
next(batches), next(batches)  # one of each worker: both have started
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
for _ in sys.stdin:
    next(batches)
    print("next", flush=True)
"""


class Main:
    """The process that uses a loader."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stdin is not None
        self.process, self.input, self.output = process, process.stdin, process.stdout
        self.workers = [int(pid) for pid in process.stdout.readline().split()]

    def read(self, batches: int) -> None:
        for _ in range(batches):
            self.input.write("\n")
            self.input.flush()
            assert self.output.readline() == "next\n"

    def workers_left(self) -> list[int]:
        return [pid for pid in self.workers if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    """R, S, Z (ended, but not waited for) and so on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


@contextmanager
def main_process(folder: Path) -> Iterator[Main]:
    """The process and its workers, in their own process group."""
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            main = Main(process)
            assert len(main.workers_left()) == 2
            yield main
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def workers_end(main: Main) -> bool:
    stop = time.monotonic() + PATIENCE_S
    while main.workers_left() and time.monotonic() < stop:
        time.sleep(0.05)
    return not main.workers_left()


@pytest.mark.slow  # the next test ends in the same way
def test_the_interpreter_can_exit_while_a_loader_is_in_use(prepared: Path) -> None:
    with main_process(prepared) as main:
        main.input.close()
        assert main.process.wait(PATIENCE_S) == 0
        assert workers_end(main)


def test_workers_ignore_signals_to_their_process_group(prepared: Path) -> None:
    """Even repeated ones. When the main process exits, the workers end."""
    with main_process(prepared) as main:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.killpg(main.process.pid, number)
            main.read(10)  # more than are prefetched
        assert len(main.workers_left()) == 2
        main.input.close()
        assert main.process.wait(PATIENCE_S) == 0
        assert workers_end(main)


@pytest.mark.slow
def test_workers_end_when_the_main_process_is_killed(prepared: Path) -> None:
    with main_process(prepared) as main:
        main.process.kill()
        main.process.wait()
        assert workers_end(main)
