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

__all__ = ["FINISHED", "STAGES", "claim"]

STAGES = ("inputs", "pieces", "distinct", "shards", "rejected")
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
    folder = output.with_name(f".{output.name}.unfinished")
    is_left_over = folder.exists() and not (folder / FINISHED).exists()  # the last step of an earlier call was cut off
    in_use = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if in_use and not overwrite:
        if is_left_over:
            shutil.rmtree(folder)
        raise DataError(f"{output} exists already. Name another folder, or replace it with --overwrite.")
    if in_use and not (output / MANIFEST).is_file():
        raise DataError(f"{output} holds no {MANIFEST}, so it is not prepared data and is not overwritten. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", str(output), "Wait for that run, stop it, or name another folder."):
        if restart or is_left_over:
            _empty(folder)
        _check_job(folder / _SETTINGS, job, output)
        for name in (*STAGES, FINISHED):
            (folder / name).mkdir(exist_ok=True)
        try:
            yield folder
        except BaseException:
            if not any((folder / "pieces").glob("*.json")):  # nothing was done that is worth going on with
                shutil.rmtree(folder)
            raise
        _publish(folder, output)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


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
    replaced = output.with_name(f".{output.name}.replaced")
    if output.exists() and any(output.iterdir()):
        shutil.rmtree(replaced, ignore_errors=True)
        output.rename(replaced)
    flush(folder / FINISHED)
    (folder / FINISHED).rename(output)  # also onto an empty folder
    flush(output.parent)
    shutil.rmtree(folder)
    shutil.rmtree(replaced, ignore_errors=True)
