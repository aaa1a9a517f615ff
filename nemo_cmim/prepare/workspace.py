"""The folder in which `prepare` works, next to its output. One call uses it at a time; an interrupted call leaves it for the next.

    .NAME.unfinished/job.json           what the work is
    .NAME.unfinished/IDENTITY/...       results of its tasks. IDENTITY is a hash of job.json, so that a late task of another job
                                        does not find the folder of this one
    .NAME.unfinished/IDENTITY/finished  the future NAME
    .NAME.replaced                      the previous NAME, until the new one is in place

`finished` is created before job.json and removed before it. So if job.json exists without `finished`, NAME is the result of this
work; a folder without job.json is useless and is removed.
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
from ..store.manifest import FORMAT_NAME, MANIFEST
from .cluster import WorkersLostError

__all__ = ["FINISHED", "claim"]

FINISHED = "finished"
_STAGES = ("inputs", "chunks", "distinct", "shards", "properties", "records", "rejected")
_JOB = "job.json"


@contextmanager
def claim(output: Path, job: dict[str, Any], *, overwrite: bool, restart: bool) -> Iterator[Path | None]:
    """Yields the folder to work in, or None if an earlier call finished this job but was interrupted before it removed the folder.

    If the block succeeds, `finished` is renamed to `output`, and the rest is removed.

    Args:
        output: Absolute path of the output.
        job: What determines the output, as JSON: `settings`, `inputs` with their sizes and modification times, `vocabulary`,
            `versions`. Only unfinished work of an equal job is resumed.
        overwrite: Replace an output that `prepare` wrote, unless it contains other files.
        restart: Delete unfinished work.

    Raises:
        DataError: If the output exists and may not be replaced, or the unfinished work is of a different job.
        ConfigError: If another process is using the folder.
    """
    folder, replaced = (output.with_name(f".{output.name}.{what}") for what in ("unfinished", "replaced"))
    work = folder / hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]
    output.parent.mkdir(parents=True, exist_ok=True)
    with lock(output.with_name(f".{output.name}.lock"), str(output), "Wait for that run, stop it, or name a different folder."):
        if replaced.exists() and not output.exists():
            replaced.rename(output)  # an earlier call was interrupted between the two renames
        if (folder / _JOB).exists() and not any(folder.glob(f"*/{FINISHED}")):
            is_done = _load(folder / _JOB) == job
            _remove_finished(folder, replaced)
            if is_done:
                yield None
                return
        if not (folder / _JOB).exists():
            _remove_unfinished(folder)
        _check_output(output, overwrite)
        if restart:
            _remove_unfinished(folder)
        elif folder.exists():
            _check_job(_load(folder / _JOB), job, output)
        for name in (FINISHED, *_STAGES):
            (work / name).mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / _JOB) as staging:
            staging.write_text(json.dumps(job), encoding="utf-8")
        try:
            yield work
        except BaseException as error:
            if not _is_worth_resuming(work, error):
                _remove_unfinished(folder)
            raise
        fsync(work / FINISHED)
        _check_output(output, overwrite)  # again: files may have been added in the meantime
        if output.exists() and any(output.iterdir()):
            shutil.rmtree(replaced, ignore_errors=True)
            output.rename(replaced)
        (work / FINISHED).rename(output)  # an empty folder there is replaced
        fsync(output.parent)
        _remove_finished(folder, replaced)


def _is_worth_resuming(work: Path, error: BaseException) -> bool:
    """Whether a chunk is done, or an input is scanned and it is not the inputs or the settings (a `ValueError`) that must be fixed."""
    must_be_fixed = isinstance(error, ValueError) and not isinstance(error, WorkersLostError)
    return any((work / "chunks").glob("*.json")) or (not must_be_fixed and any((work / "inputs").glob("*.json")))


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_dir() and not any(output.iterdir()):
        if os.path.ismount(output):
            raise DataError(f"{output} is a mount point, which cannot be replaced. Name a folder inside it.")
        return
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise DataError(f"{output} already exists. Name a different folder, or pass overwrite=True to replace it.")
    try:
        content = _load(output / MANIFEST)
        files = {MANIFEST, *content["files"]} if content["format"].startswith(FORMAT_NAME) else set()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        files = set()
    if not files:
        raise DataError(
            f"{output} has no {MANIFEST} of `prepare`, so it is not prepared data and is not overwritten. Name a different folder."
        )
    others = sorted(path.name for path in output.iterdir() if path.name not in files)
    if others:
        raise DataError(
            f"{output} contains {others[0]!r}, which `prepare` did not write, so the folder is not overwritten. Move {others[0]!r}, or "
            "name a different folder."
        )


def _load(path: Path) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return job


def _check_job(begun: dict[str, Any], job: dict[str, Any], output: Path) -> None:
    """Raises a `DataError` if the unfinished work is of a different job."""
    old, new = begun["settings"], job["settings"]
    changes = [f"{name}={old.get(name)}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    names, before = ([name for name, *_ in one["inputs"]] for one in (job, begun))
    if names != before:
        changes.append("different inputs")
    else:
        changes += [f"a different {name}" for name, one, other in zip(names, job["inputs"], begun["inputs"]) if one != other][:3]
    changes += [f"different {name}" for name in ("vocabulary", "versions") if begun[name] != job[name]]
    if changes:
        raise DataError(
            f"The unfinished work on {output} was begun with {', '.join(changes)}. Rerun with these to resume it, "
            "or with --restart to delete it."
        )


def _remove_unfinished(folder: Path) -> None:
    """Removes unfinished work. If this is interrupted, what is left has no job.json and is removed by the next call."""
    (folder / _JOB).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_finished(folder: Path, replaced: Path) -> None:
    """Removes what is left of finished work; job.json last, because it says that the output is the result of this work."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.rmtree(replaced, ignore_errors=True)
    shutil.rmtree(folder)
