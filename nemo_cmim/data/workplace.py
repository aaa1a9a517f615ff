"""The folder in which `prepare` works, beside its output: taken by one call at a time, and left for the next one when it is cut off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import flush, lock, whole_file
from .manifest import MANIFEST

__all__ = ["FINISHED", "claim", "was_finished"]

_STAGES = ("inputs", "pieces", "distinct", "shards", "rejected")
FINISHED = "finished"  # what will be the output
_SETTINGS = "settings.json"


@contextmanager
def claim(output: Path, job: dict[str, Any], *, overwrite: bool, restart: bool) -> Iterator[Path]:
    """Yields the folder to work in; when the block ends well its `finished` takes the name `output`, and the rest vanishes.

    Args:
        output: An absolute path.
        job: What the work is: inputs and settings, as JSON has them. Unfinished work of another job is not gone on with.
        overwrite: Replace an output that `prepare` wrote before.
        restart: Throw unfinished work away.

    Raises:
        DataError: The output is in use, or unfinished work is of another job.
        ConfigError: Another process is at work there.
    """
    folder = _folder_of(output)
    in_use = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if in_use and not overwrite:
        raise DataError(f"{output} exists already. Name another folder, or replace it with --overwrite.")
    if in_use and not (output / MANIFEST).is_file():
        raise DataError(f"{output} holds no {MANIFEST}, so it is not prepared data and is not overwritten. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", str(output), "Wait for that run, stop it, or name another folder."):
        if restart or not (folder / FINISHED).exists():
            _empty(folder)
        for name in (FINISHED, *_STAGES):  # `finished` is there before the settings are: see `was_finished`
            (folder / name).mkdir(exist_ok=True)
        _check_job(folder / _SETTINGS, job, output)
        try:
            yield folder
        except BaseException:
            if not any((folder / "pieces").glob("*.json")):  # nothing was done that is worth going on with
                shutil.rmtree(folder, ignore_errors=True)
            raise
        _publish(folder, output)


def was_finished(output: Path, job: dict[str, Any]) -> bool:
    """Whether an earlier call for the same job was cut off after its result took its name; then what it left is cleared away."""
    folder = _folder_of(output)
    is_done = (folder / _SETTINGS).is_file() and not (folder / FINISHED).exists() and (output / MANIFEST).is_file()
    if not is_done or json.loads((folder / _SETTINGS).read_text(encoding="utf-8")) != job:
        return False
    _clear(folder, output)
    return True


def _folder_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.unfinished")


def _empty(folder: Path) -> None:
    (folder / _SETTINGS).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _check_job(path: Path, job: dict[str, Any], output: Path) -> None:
    """Compares a job with the one that the unfinished work is of, or notes it if there is none."""
    if not path.exists():
        with whole_file(path) as staging:
            staging.write_text(json.dumps(job), encoding="utf-8")
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    if begun == job:
        return
    changes = [f"{name} {begun['settings'][name]}" for name, value in job["settings"].items() if begun["settings"][name] != value]
    changes += [f"other {name}" for name in ("inputs", "vocabulary", "versions") if begun[name] != job[name]]
    raise DataError(
        f"Work on {output} was begun with {', '.join(changes)}. Give the same again to go on with it, or throw it away with --restart."
    )


def _publish(folder: Path, output: Path) -> None:
    flush(folder / FINISHED)
    if output.exists() and any(output.iterdir()):
        shutil.rmtree(_replaced(output), ignore_errors=True)
        output.rename(_replaced(output))
    (folder / FINISHED).rename(output)  # also onto an empty folder
    flush(output.parent)
    _clear(folder, output)


def _replaced(output: Path) -> Path:
    return output.with_name(f".{output.name}.replaced")


def _clear(folder: Path, output: Path) -> None:
    shutil.rmtree(folder)
    shutil.rmtree(_replaced(output), ignore_errors=True)
