"""Processes of tests: ranks over gloo, and the processes of a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.training.ranks import start_function

__all__ = ["in_session", "run_ranks"]


def run_ranks(function: Callable[[Path], None], ranks: int, folder: Path) -> None:
    """Runs `function(folder)` as each rank. Fails with the output if a rank fails."""
    start_function(folder / f"logs-{ranks}", ranks, function, folder).succeed()


def in_session(leader: int) -> list[int]:
    """Numbers of all processes in the session of a process, that one included, whatever their parent is by now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = entry.read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
        if int(session) == leader and state != "Z":
            found.append(int(entry.parent.name))
    return found
