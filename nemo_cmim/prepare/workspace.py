"""The folder in which `prepare` works, beside its output: taken by one call at a time, and left for the next one when it is cut off.

    .NAME.unfinished/job.json           what the work is
    .NAME.unfinished/IDENTITY/...       results of its tasks; a task of another job that ends late does not find its folder
    .NAME.unfinished/IDENTITY/finished  what will be NAME
    .NAME.replaced                      what NAME was, while the new one takes its name

`finished` is made before job.json and gone before it, so job.json without `finished` says that NAME is the work's result, and a
folder without job.json is of no use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import atomic_write, fsync, lock
from ..store.manifest import MANIFEST

__all__ = ["FINISHED", "claim"]

FINISHED = "finished"
_STAGES = ("inputs", "chunks", "distinct", "shards", "rejected")
_JOB = "job.json"


@contextmanager
def claim(output: Path, job: dict[str, Any], *, overwrite: bool, restart: bool) -> Iterator[Path | None]:
    """Yields the folder to work in, or None if an earlier call for this job was cut off only after its result took its name.

    When the block ends well `finished` takes the name `output`, and the rest vanishes.

    Args:
        output: An absolute path.
        job: What the work is: `settings`, `inputs` with their sizes and dates, `vocabulary`, `versions`, as JSON has them.
            Unfinished work of another job is not gone on with.
        overwrite: Replace an output that `prepare` wrote before.
        restart: Throw unfinished work away.

    Raises:
        DataError: The output is in use, or unfinished work is of another job.
        ConfigError: Another process is at work there.
    """
    folder, replaced = (output.with_name(f".{output.name}.{what}") for what in ("unfinished", "replaced"))
    work = folder / hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
    output.parent.mkdir(parents=True, exist_ok=True)
    with lock(output.with_name(f".{output.name}.lock"), str(output), "Wait for that run, stop it, or name another folder."):
        if replaced.exists() and not output.exists():
            replaced.rename(output)  # an earlier call was cut off between the two renames
        if (folder / _JOB).exists() and not any(folder.glob(f"*/{FINISHED}")):
            is_done = _load(folder / _JOB) == job
            _clear(folder, replaced)
            if is_done:
                yield None
                return
        if not (folder / _JOB).exists():
            _discard(folder)
        _check_output(output, overwrite)
        if restart:
            _discard(folder)
        elif folder.exists():
            _check_job(_load(folder / _JOB), job, output)
        for name in (FINISHED, *_STAGES):
            (work / name).mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / _JOB) as staging:
            staging.write_text(json.dumps(job), encoding="utf-8")
        try:
            yield work
        except BaseException:
            if not any((work / "chunks").glob("*.json")):  # nothing was done that is worth going on with
                _discard(folder)
            raise
        fsync(work / FINISHED)
        if output.exists() and any(output.iterdir()):
            shutil.rmtree(replaced, ignore_errors=True)
            output.rename(replaced)
        (work / FINISHED).rename(output)  # also onto an empty folder
        fsync(output.parent)
        _clear(folder, replaced)


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_dir() and not any(output.iterdir()):
        if os.path.ismount(output):
            raise DataError(f"{output} is a mount point, which cannot take the place of a folder. Name a folder in it.")
        return
    if output.exists() and not overwrite:
        raise DataError(f"{output} exists already. Name another folder, or replace it with --overwrite.")
    if output.exists() and not (output / MANIFEST).is_file():
        raise DataError(f"{output} holds no {MANIFEST}, so it is not prepared data and is not overwritten. Name another folder.")


def _load(path: Path) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return job


def _check_job(begun: dict[str, Any], job: dict[str, Any], output: Path) -> None:
    """Compares a job with the one that the unfinished work is of."""
    old, new = begun["settings"], job["settings"]
    changes = [f"{name} {old.get(name)}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    names, before = ([name for name, *_ in one["inputs"]] for one in (job, begun))
    if names != before:
        changes.append("other inputs")
    else:
        changes += [f"another {name}" for name, one, other in zip(names, job["inputs"], begun["inputs"]) if one != other][:3]
    changes += [f"other {name}" for name in ("vocabulary", "versions") if begun[name] != job[name]]
    if changes:
        raise DataError(
            f"Work on {output} was begun with {', '.join(changes)}. Give the same again to go on with it, or throw it away with --restart."
        )


def _discard(folder: Path) -> None:
    """Removes unfinished work; what is left of it if that is cut off is of no use."""
    (folder / _JOB).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _clear(folder: Path, replaced: Path) -> None:
    """Removes what is left of work that is done; until it is, the job is there to tell."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(folder)
