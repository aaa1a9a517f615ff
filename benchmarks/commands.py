"""Runs commands of `nemo-cmim` in processes of their own, and measures time and memory."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.molecules import sample_smiles

__all__ = ["Command", "arguments", "timed", "write_table"]


class Command(NamedTuple):
    """What a command needed: seconds of wall time and of processor time, and the largest sum of the resident memory of its processes."""

    seconds: float
    processor: float
    memory_mb: float


def arguments(doc: str | None, rows: int) -> argparse.Namespace:
    """The command line of a benchmark that embeds `rows` molecules by default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=rows, metavar="N", help="rows to embed (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds to measure (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    return parser.parse_args()


def timed(arguments: Sequence[object], threads: int) -> Command:
    """Runs `nemo-cmim` with that number of threads in each process."""
    before, start, largest = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0.0
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "nemo_cmim.cli", *map(str, arguments)]
    process = psutil.Popen(command, env=environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        largest = max(largest, sum(map(_memory_mb, [process, *_children(process)])))
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Command(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, largest)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:  # it has just ended
        return []


def _memory_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.Error:
        return 0.0


def write_table(path: Path, rows: int) -> Path:
    """Writes a table of molecules of MOSES, and returns its path."""
    with path.open("w") as file:
        file.write("id,smiles\n")
        file.writelines(f"{i},{one}\n" for i, one in enumerate(sample_smiles(rows)))
    return path
