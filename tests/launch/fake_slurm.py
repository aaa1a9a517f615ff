"""A stand-in for Slurm: `srun` and `scontrol` record their arguments, and `srun` exits with the status that a test sets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FakeSlurm"]

SRUN = """#!/bin/bash
case "$*" in *hostname*) echo 10.0.0.1; exit;; esac
printf '%s\\n' "$@" > "$CALLS/srun.calls"
[ -n "$CANCEL" ] && kill -TERM "$PPID"
exit "$STATUS"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo node1; else echo "$@" >> "$CALLS/scontrol.calls"; fi
"""


@dataclass
class FakeSlurm:
    """Runs a batch script with the environment variables that Slurm sets."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    def run(
        self,
        script: Path,
        *arguments: str,
        status: int = 0,
        restarts: int = 0,
        cancel: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "CALLS": str(self.folder),
            "STATUS": str(status),
            "CANCEL": "1" if cancel else "",
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NUM_NODES": "4",
            "SLURM_NTASKS_PER_NODE": "8",
            "SLURM_JOB_NODELIST": "node[1-4]",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        command = ["bash", str(script), *arguments]
        return subprocess.run(
            command, env={**variables, **(env or {})}, cwd=self.folder, capture_output=True, text=True, check=False
        )

    def called(self, program: str) -> Sequence[str]:
        """The recorded arguments of a program."""
        calls = self.folder / f"{program}.calls"
        return calls.read_text().splitlines() if calls.exists() else []
