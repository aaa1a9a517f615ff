"""What every task of one `prepare` run is given, and where tasks leave their results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import atomic_write
from ..store.token_store import VOCABULARY
from .settings import Settings

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """One `prepare` run. Its tasks may run on any machine that sees the folder and the inputs.

    Attributes:
        folder: Where the tasks write their results; see `workspace`.
        settings: The settings.
    """

    folder: Path
    settings: Settings

    @property
    def vocabulary(self) -> Path:
        """The vocabulary file."""
        return self.folder / VOCABULARY

    def result(self, stage: str, number: int, suffix: str = "json") -> Path:
        """A file that a task writes. Its .json file is written last, so the task is done if that file exists."""
        return self.folder / stage / f"{number:06d}.{suffix}"

    def save(self, stage: str, number: int, content: dict[str, Any]) -> None:
        """Writes the .json file of a task."""
        with atomic_write(self.result(stage, number)) as path:
            path.write_text(json.dumps(content), encoding="utf-8")

    def load(self, stage: str, number: int) -> dict[str, Any]:
        """Reads the .json file of a task."""
        content: dict[str, Any] = json.loads(self.result(stage, number).read_text(encoding="utf-8"))
        return content
