"""Runs a command as several ranks, as a launcher such as torchrun does, with one thread each."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

__all__ = ["run_ranks"]


def run_ranks(command: list[str], ranks: int, log: Path) -> str:
    """Runs `command` as each rank; returns what rank 0 printed.

    Raises:
        SystemExit: One of them failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RUN_ID": "bench",
    }
    shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    logs = [log.with_suffix(f".{rank}") for rank in range(ranks)]
    processes = []
    for rank, path in enumerate(logs):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with path.open("w") as out:
            processes.append(subprocess.Popen(command, env=shared | own, stdout=out, stderr=subprocess.STDOUT))
    failed = [rank for rank, process in enumerate(processes) if process.wait()]
    if failed:
        raise SystemExit(f"Rank {failed[0]} of {ranks} failed: {' '.join(command)}\n{logs[failed[0]].read_text()[-3000:]}")
    return logs[0].read_text()
