"""Runs a command on several ranks, as torchrun does, with one thread each. Used by benchmarks and tests."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

__all__ = ["free_port", "run_ranks", "torchrun_environment"]


def free_port() -> int:
    """Returns a free TCP port of this computer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def torchrun_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Environment variables that torchrun sets for a process."""
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": ranks,
        "GROUP_RANK": 0,
        "MASTER_PORT": port,
    }
    return {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "ranks"} | {name: str(number) for name, number in numbers.items()}


def run_ranks(command: list[str], ranks: int, log: Path, timeout_s: float | None = None) -> str:
    """Runs `command` on each rank; returns the output of rank 0.

    Args:
        command: Program and arguments.
        ranks: Number of ranks.
        log: Output files of the ranks, with the rank as suffix.
        timeout_s: Seconds after which a rank that has not ended is killed; None: no limit.

    Raises:
        SystemExit: If a rank failed.
    """
    port, logs = free_port(), [log.with_suffix(f".{rank}") for rank in range(ranks)]
    processes = []
    for rank, path in enumerate(logs):
        environment = os.environ | torchrun_environment(rank, ranks, port) | {"OMP_NUM_THREADS": "1"}
        with path.open("w") as out:
            processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
    try:
        failed = [rank for rank, process in enumerate(processes) if process.wait(timeout_s)]
    finally:
        for process in processes:
            process.kill()
    if failed:
        raise SystemExit(f"Rank {failed[0]} of {ranks} failed: {' '.join(command)}\n{logs[failed[0]].read_text()[-3000:]}")
    return logs[0].read_text()
