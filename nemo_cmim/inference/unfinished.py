"""Finished blocks of an interrupted call that streams a file, in a folder next to its output."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import atomic_write, lock

__all__ = ["Unfinished", "staging_of"]

_JOB = "job.json"
_LOCK = "lock"
_BLOCKS = f"{8 * '[0-9]'}.block"
_TEMPORARY = ("staging-*", f".{_JOB}.*", f".{_BLOCKS}.*")


class Unfinished:
    """The folder, which `opened` creates. It also has the temporary files of the outputs, so that none of them stays elsewhere.

    Args:
        target: The output.
        inputs: The inputs, which are files that can be read again.
        settings: Everything else that the results depend on.

    Raises:
        ConfigError: If an input cannot be read again, or the output is standard output.
    """

    def __init__(self, target: Path, inputs: Sequence[str | Path], settings: Mapping[str, Any]) -> None:
        for source in inputs:
            if not Path(source).is_file():
                raise ConfigError(f"resume=True needs files that can be read again, but {source} is not a file. Save it first.")
        if str(target) == "-":
            raise ConfigError("resume=True needs an output file, but the output is standard output. Name a file.")
        self.folder = target.with_name(f".{target.name}.unfinished")
        states = [(str(Path(source).absolute()), Path(source).stat().st_size, Path(source).stat().st_mtime_ns) for source in inputs]
        self._target, self._job = target, json.loads(json.dumps({"inputs": states, **settings}))

    @contextmanager
    def opened(self) -> Iterator[Unfinished]:
        """Context in which only this process uses the folder. The folder is removed if the block succeeds.

        Raises:
            ConfigError: If another process uses it.
            DataError: If it belongs to other inputs or settings, or was not written by this class.
        """
        self._check()
        self.folder.mkdir(exist_ok=True)
        try:
            with lock(self.folder / _LOCK, str(self._target), "Wait for it to end."):
                if not (self.folder / _JOB).is_file():
                    with atomic_write(self.folder / _JOB) as staging:
                        staging.write_text(json.dumps(self._job), encoding="utf-8")
                self._remove(*_TEMPORARY)  # of a process that was killed
                try:
                    yield self
                    self._remove(_BLOCKS)
                finally:
                    if not any(self.folder.glob(_BLOCKS)):
                        self._remove(_JOB)
        finally:
            with suppress(OSError):  # it has blocks, files of the user, or the lock of another process
                self.folder.rmdir()

    def _check(self) -> None:
        if not self.folder.exists():
            return
        try:
            begun = json.loads((self.folder / _JOB).read_text(encoding="utf-8"))
            different = [key for key in self._job if self._job[key] != begun.get(key)]
        except (OSError, ValueError, AttributeError):
            if self.folder.is_dir() and all(path.name == _LOCK for path in self.folder.iterdir()):
                return  # a process was killed before it had begun
            raise DataError(
                f"{self.folder} is not unfinished work of this program. Rename it, or name a different output."
            ) from None
        if different:
            raise DataError(
                f"The unfinished work on {self._target} has different {', '.join(different)}. Restore them, or delete {self.folder} to "
                "begin anew."
            )

    def _remove(self, *patterns: str) -> None:
        for path in [path for pattern in patterns for path in self.folder.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def save(self, number: int, result: bytes) -> None:
        """Saves the result of a block."""
        with atomic_write(self._path(number)) as staging:
            staging.write_bytes(result)

    def load(self, number: int) -> bytes | None:
        """What was saved for a block, which may be damaged; None if nothing was."""
        with suppress(OSError):
            return self._path(number).read_bytes()
        return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.block"


def staging_of(unfinished: Unfinished | None, name: str, output: str | Path | None) -> Path | None:
    """The path of a temporary file in the folder, which does not exist yet, for an output.

    None if there is no folder or no output, or if the output is on another file system.
    """
    if unfinished is None or output is None or Path(output).parent.stat().st_dev != unfinished.folder.stat().st_dev:
        return None
    return unfinished.folder / f"staging-{name}"
