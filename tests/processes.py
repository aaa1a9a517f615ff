"""Starts the ranks of a distributed test: real processes over gloo."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.ranks import run_ranks as run_command

__all__ = ["run_ranks"]


def run_ranks(script: Path, ranks: int, *arguments: str | Path) -> None:
    """Runs `python script arguments` as each rank; fails with the output of one that fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_command([sys.executable, str(script), *map(str, arguments)], ranks, Path(folder) / "log", timeout_s=240)
        except SystemExit as error:
            pytest.fail(str(error))
