"""The folder of a run. Only one run at a time may use it, and a new run does not overwrite an earlier one.

checkpoints/  step=*.ckpt, the final .nemo       metrics/  steps.jsonl       failed/  batches of diverged steps
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from ...errors import CheckpointError, ConfigError
from ...files import acquire_lock
from .format import CheckpointManifest, find_checkpoints, newest_valid, verify

__all__ = ["RunFolder", "claim_run_folder"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, and the checkpoint from which the run resumes.

    Attributes:
        path: The folder.
        resume_from: A valid checkpoint; None starts from step 0.
        kept: The checkpoints in the folder up to that step, and the monitored value of each; see `CheckpointManifest`.
    """

    path: Path
    resume_from: Path | None
    kept: dict[Path, float | None]

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"


@contextmanager
def claim_run_folder(settings: dict[str, Any]) -> Generator[RunFolder, None, None]:
    """Context that locks the folder of a run until the run ends. All ranks must enter it; rank 0 chooses and locks.

    Args:
        settings: `exp_manager` of a training config: `explicit_log_dir`, or `exp_dir` and `name`; `resume_if_exists`,
            `resume_ignore_no_checkpoint`, `resume_from_checkpoint`.

    Raises:
        ConfigError: If the folder cannot be written, is in use, or contains an earlier run or files that are not of a run.
        CheckpointError: If there is no valid checkpoint to resume from.
    """
    decision: list[Any] = [None]
    lock = None
    if torch.distributed.get_rank() == 0:
        try:
            path = _choose(settings)
            _check_no_foreign_files(path)
            lock = _lock(path)
            resume_from = _checkpoint_to_resume(path, settings)
            decision[0] = RunFolder(path, resume_from, _move_newer_aside(path / "checkpoints", resume_from))
        except (ConfigError, CheckpointError) as error:
            decision[0] = error
        except OSError as error:
            decision[0] = ConfigError(f"The run folder {path} cannot be used: {error}.")
    torch.distributed.broadcast_object_list(decision)
    try:
        if isinstance(decision[0], ValueError):
            raise decision[0]
        yield decision[0]
    finally:
        if lock is not None:
            lock.close()


def _choose(settings: dict[str, Any]) -> Path:
    if settings.get("explicit_log_dir"):
        return Path(settings["explicit_log_dir"]).resolve()
    folder = Path(settings.get("exp_dir") or "nemo_experiments") / (settings.get("name") or "default")
    version = settings.get("version") or (None if settings.get("resume_if_exists") else time.strftime("%Y-%m-%d_%H-%M-%S"))
    return (folder / version if version else folder).resolve()


def _check_no_foreign_files(path: Path) -> None:
    foreign = [] if (path / "checkpoints").is_dir() or not path.is_dir() else [p.name for p in path.iterdir() if p.is_file()]
    if foreign:
        raise ConfigError(
            f"{path} contains files that are not of a run, for example {min(foreign)}, and NeMo's exp_manager would move these files. "
            "Choose a different exp_manager.explicit_log_dir."
        )


def _lock(path: Path) -> IO[str]:
    """Locks the folder until the returned file is closed or this process ends."""
    another = "choose a different exp_manager.explicit_log_dir."
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        file = acquire_lock(path / "checkpoints" / ".lock", f"The run folder {path}", f"Wait for that run, stop it, or {another}")
    except OSError as error:
        raise ConfigError(f"The run folder {path} cannot be written: {error.strerror}. C{another[1:]}") from error
    os.register_at_fork(after_in_child=file.close)  # a loader worker may live some seconds longer than this process
    return file


def _checkpoint_to_resume(path: Path, settings: dict[str, Any]) -> Path | None:
    named, found = settings.get("resume_from_checkpoint"), find_checkpoints(path / "checkpoints")
    if named and not (settings.get("resume_if_exists") and found):  # a requeued run resumes from its own checkpoints
        verify(Path(named))
        return Path(named).resolve()
    if not settings.get("resume_if_exists"):
        if found:
            raise ConfigError(
                f"{path} already contains a run ({found[0].name}). Set exp_manager.resume_if_exists=true to resume the run, or choose a "
                "different exp_manager.explicit_log_dir."
            )
        return None
    newest, errors = newest_valid(path / "checkpoints")
    for error in errors:
        warnings.warn(f"Skipped a checkpoint: {error}", stacklevel=2)
    if newest is None and found:
        raise CheckpointError(f"None of the {len(found)} checkpoints in {path} is valid. The newest: {errors[0]}")
    if newest is None and not settings.get("resume_ignore_no_checkpoint", True):
        raise CheckpointError(
            f"{path} does not contain a checkpoint to resume from. Set exp_manager.resume_ignore_no_checkpoint=true to start a new run."
        )
    return newest


def _move_newer_aside(checkpoints: Path, resume_from: Path | None) -> dict[Path, float | None]:
    """Renames damaged checkpoints, and those after the step to resume from, which the run writes again. Returns the others."""
    step = CheckpointManifest.read(resume_from).step if resume_from else -1
    for partial in checkpoints.glob(".step=*.partial"):  # left by a run that was killed while it wrote or removed a checkpoint
        shutil.rmtree(partial, ignore_errors=True)
    kept: dict[Path, float | None] = {}
    for path in find_checkpoints(checkpoints):
        try:
            manifest = CheckpointManifest.read(path)
        except CheckpointError:
            manifest = None
        if manifest is not None and manifest.step <= step:
            kept[path] = manifest.monitored
        else:
            aside = path.with_name(f"aside.{time.strftime('%Y%m%d-%H%M%S')}.{path.name}")
            path.rename(aside)
            warnings.warn(f"The checkpoint {path} is not used to resume the run. It is renamed to {aside.name}.", stacklevel=2)
    return kept
