"""Finished blocks of an interrupted `embed_file`, in a folder next to its output."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..files import atomic_write

__all__ = ["Unfinished"]

_JOB = "job.json"


class Unfinished:
    """The folder. It is created if it does not exist.

    Args:
        target: The output.
        inputs: The inputs, which are files that can be read again.
        settings: Everything else that the vectors depend on.

    Raises:
        ConfigError: If an input cannot be read again.
        DataError: If the folder belongs to other inputs or settings.
    """

    def __init__(self, target: Path, inputs: Sequence[str | Path], settings: Mapping[str, Any]) -> None:
        for source in inputs:
            if not Path(source).is_file():
                raise ConfigError(f"resume=True needs files that can be read again, but {source} is not a file. Save it first.")
        if str(target) == "-":
            raise ConfigError("resume=True needs an output file, but the output is standard output. Name a file.")
        self.folder = target.with_name(f".{target.name}.unfinished")
        states = [(str(Path(source).absolute()), Path(source).stat().st_size, Path(source).stat().st_mtime_ns) for source in inputs]
        job = json.loads(json.dumps({"inputs": states, **settings}))
        if (self.folder / _JOB).is_file():
            begun = json.loads((self.folder / _JOB).read_text(encoding="utf-8"))
            if different := [key for key in job if job[key] != begun.get(key)]:
                raise DataError(
                    f"The unfinished work on {target} has different {', '.join(different)}. Restore them, or delete {self.folder} to begin "
                    "anew."
                )
            return
        self.folder.mkdir(exist_ok=True)
        with atomic_write(self.folder / _JOB) as staging:
            staging.write_text(json.dumps(job), encoding="utf-8")

    def save(self, number: int, vectors: NDArray[np.float32], reasons: Mapping[int, str]) -> None:
        """Saves the result of `CMIMModel.embed_or_explain` for a block."""
        with atomic_write(self._path(number)) as staging, staging.open("wb") as file:
            np.save(file, vectors)
            file.write(json.dumps(dict(reasons)).encode())

    def load(self, number: int) -> tuple[NDArray[np.float32], dict[int, str]] | None:
        """What was saved for a block; None if nothing was."""
        if not self._path(number).is_file():
            return None
        with io.BytesIO(self._path(number).read_bytes()) as file:
            vectors = np.load(file, allow_pickle=False)
            return vectors, {int(index): reason for index, reason in json.loads(file.read()).items()}

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.block"
