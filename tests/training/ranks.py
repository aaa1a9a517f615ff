"""Training runs on several real processes, as a launcher starts them.

The processes are forked from a server that has imported the training stack, which takes half a minute, once.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks.ranks import free_port, torchrun_environment

__all__ = ["Ranks", "as_srun", "start_function", "start_training", "train_with"]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["nemo_cmim.training.run", "tests.training.ranks"])


class Ranks:
    """Processes that run. Their output is in files."""

    def __init__(self, processes: list[ForkServerProcess], logs: list[Path]) -> None:
        self.processes, self.logs = processes, logs

    def wait(self, timeout_s: float = 150.0) -> list[int | None]:
        """Exit statuses once all have ended; whoever has not by then is killed, and has the status None."""
        stop = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, stop - time.monotonic()))
        statuses = [process.exitcode for process in self.processes]
        self.send(signal.SIGKILL)
        return statuses

    def succeed(self) -> None:
        """Waits, and fails with the output of those that failed."""
        statuses = self.wait()
        assert statuses == [0] * len(statuses), f"statuses {statuses}\n{self.output()[-6000:]}"

    def send(self, number: signal.Signals, *ranks: int) -> None:
        """Sends a signal to some ranks, or all."""
        for process in [self.processes[r] for r in ranks] or self.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)
        if number == signal.SIGKILL:
            for process in self.processes:
                process.join()

    def output(self) -> str:
        """What all ranks printed."""
        return "\n".join(f"--- {log.stem}\n{log.read_text(errors='replace')}" for log in self.logs)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Returns when the condition holds; fails if the processes end or time runs out before."""
        stop = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < stop, f"nothing happened in {timeout_s} s\n{self.output()[-4000:]}"
            assert all(p.is_alive() for p in self.processes) or condition(), f"ended early\n{self.output()[-6000:]}"
            time.sleep(0.02)


def as_srun(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment that Slurm's srun gives a task."""
    place = {"SLURM_NTASKS": str(ranks), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "cmim", "SLURM_NTASKS_PER_NODE": str(ranks), "SLURM_NODELIST": "127.0.0.1"}
    return place | job | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _main(environment: dict[str, str], log: Path, function: Callable[..., None], arguments: Sequence[Any]) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ |= environment
    import torch

    torch.set_num_threads(1)
    function(*arguments)


def start_function(
    folder: Path,
    ranks: int,
    function: Callable[..., None],
    *arguments: Any,
    launcher: Callable[..., dict[str, str]] = torchrun_environment,
) -> Ranks:
    """Starts a function of a test module on several ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    logs = [folder / f"rank-{rank}.log" for rank in range(ranks)]
    processes = [
        _SERVER.Process(target=_main, args=(launcher(rank, ranks, port), logs[rank], function, arguments)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    started = Ranks(processes, logs)
    atexit.register(started.send, signal.SIGKILL)  # Python would wait for what a failed test has left
    return started


def train_with(overrides: list[str]) -> None:
    """The function of a training run."""
    from nemo_cmim.training.run import compose, train

    train(compose(overrides))


def start_training(folder: Path, ranks: int, overrides: Sequence[str]) -> Ranks:
    """Starts a training run; `trainer.devices` follows from the number of ranks."""
    return start_function(folder, ranks, train_with, [*overrides, f"trainer.devices={ranks}"])
