"""Environments of their own for packages that this project is compared with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["environment"]


def environment(folder: Path, *packages: str) -> Path:
    """Python of an environment with these packages, which is made in the folder if it is not there."""
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        complete.touch()
    return python
