"""The command `nemo-cmim prepare` in a process that waits at a chosen place, so that a test can kill it there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.interrupts import heed_interrupts

__all__ = [
    "PATIENCE_S",
    "SETTINGS",
    "arguments",
    "children_of",
    "has_results",
    "let_go",
    "results",
    "start",
    "start_command",
    "wait_for",
]

SETTINGS = {"piece_lines": 40, "shard_molecules": 60, "valid_fraction": 0.1, "test_fraction": 0.1}


def arguments(source: Path, output: Path, *more: str) -> list[str]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    return ["prepare", str(source), "-o", str(output), *options, *more]


# A sitecustomize.py, which Python runs at the start of each process: no more than COUNT results of a stage until GATE exists.
WAIT = """
import os, sys, time
from pathlib import Path

def wait(event, arguments):
    if event == "os.rename":
        path, gate = Path(os.fsdecode(arguments[1])), Path(os.environ["GATE"])
        if path.parent.name == os.environ["STAGE"] and path.suffix == ".json":
            while len(list(path.parent.glob("[0-9]*.json"))) >= int(os.environ["COUNT"]) and not gate.exists():
                time.sleep(0.02)

sys.addaudithook(wait)
"""
PATIENCE_S = 600.0  # until a test gives up; nothing waits so long unless it fails


def start(source: Path, output: Path, *more: str, stage: str = "", count: int = 0) -> subprocess.Popen[str]:
    """Starts `prepare`; see `start_command`."""
    return start_command(arguments(source, output, *more), output, stage, count)


def start_command(words: Sequence[str], output: Path, stage: str = "", count: int = 0) -> subprocess.Popen[str]:
    """Starts a command. It waits after `count` results of the stage until `let_go`."""
    folder = output.with_name("sitecustomize")
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(WAIT)
    variables = {"PYTHONPATH": str(folder), "STAGE": stage, "COUNT": str(count), "GATE": str(folder / "gate")}
    command = [sys.executable, "-m", "nemo_cmim.cli", *words]
    return subprocess.Popen(
        command,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )


def let_go(output: Path) -> None:
    (output.with_name("sitecustomize") / "gate").touch()


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def results(output: Path, stage: str) -> set[Path]:
    return set(output.with_name(f".{output.name}.unfinished").glob(f"*/{stage}/[0-9]*.json"))


def children_of(pid: int) -> list[int]:
    """Processes that any thread of a process started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def has_results(output: Path, stage: str, count: int) -> bool:
    return len(results(output, stage)) >= count
