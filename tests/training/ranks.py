"""Training runs on several real processes, started as a launcher starts them.

The processes are forked from a server that has imported the training stack, so that the import, about 30 s, happens only once.
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

PATIENCE_S = 600.0  # generous, so that a loaded machine does not fail a test; nothing that works takes so long

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["nemo_cmim.training.run", "tests.training.ranks"])


class Ranks:
    """Running processes. Their output is in files."""

    def __init__(self, processes: list[ForkServerProcess], logs: list[Path]) -> None:
        self.processes, self.logs = processes, logs

    def wait(self, timeout_s: float = PATIENCE_S) -> list[int | None]:
        """Waits for all processes and returns their exit statuses. Processes that exceed the timeout are killed; their status is None."""
        stop = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, stop - time.monotonic()))
        statuses = [process.exitcode for process in self.processes]
        self.send(signal.SIGKILL)
        return statuses

    def succeed(self) -> None:
        """Waits for all processes, and fails with their output if a process failed."""
        statuses = self.wait()
        assert statuses == [0] * len(statuses), f"statuses {statuses}\n{self.output()[-6000:]}"

    def send(self, number: signal.Signals, *ranks: int) -> None:
        """Sends a signal to the given ranks, or to all."""
        for process in [self.processes[r] for r in ranks] or self.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)
        if number == signal.SIGKILL:
            for process in self.processes:
                process.join()

    def output(self) -> str:
        """The output of all ranks."""
        return "\n".join(f"--- {log.stem}\n{log.read_text(errors='replace')}" for log in self.logs)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Waits until the condition holds. Fails at the timeout, or if a process ends first."""
        stop = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < stop, f"the condition did not hold within {timeout_s} s\n{self.output()[-4000:]}"
            assert all(p.is_alive() for p in self.processes) or condition(), f"a process ended early\n{self.output()[-6000:]}"
            time.sleep(0.02)


def as_srun(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment variables that Slurm's srun sets for a task."""
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
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # a rank that ended would close its connections while a slower one still sets up its groups


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
    atexit.register(started.send, signal.SIGKILL)  # at exit, Python would wait for processes that a failed test has left
    return started


def train_with(overrides: list[str]) -> None:
    """Trains with these overrides."""
    from nemo_cmim.training.run import compose, train

    train(compose(overrides))


def start_training(folder: Path, ranks: int, overrides: Sequence[str]) -> Ranks:
    """Starts a training run with as many devices as ranks."""
    return start_function(folder, ranks, train_with, [*overrides, f"trainer.devices={ranks}"])
