"""Processes of tests: ranks over gloo, and who is left of a session."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.ranks import run_ranks as run_command

__all__ = ["in_session", "run_ranks"]


def run_ranks(script: Path, ranks: int, *arguments: str | Path) -> None:
    """Runs `python script arguments` as each rank; fails with the output of one that fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_command([sys.executable, str(script), *map(str, arguments)], ranks, Path(folder) / "log", timeout_s=240)
        except SystemExit as error:
            pytest.fail(str(error))


def in_session(leader: int) -> list[int]:
    """Processes that run in the session of this process, itself among them, whoever is their parent by now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = entry.read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
        if int(session) == leader and state != "Z":
            found.append(int(entry.parent.name))
    return found
