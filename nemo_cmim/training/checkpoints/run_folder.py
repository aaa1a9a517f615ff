"""The folder of a run: one run at a time, and none over another's results.

checkpoints/  step=*.ckpt, the final .nemo       metrics/  steps.jsonl       failed/  batches that stopped the run
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
    """Where a run writes, and what it goes on from.

    Attributes:
        path: The folder.
        resume_from: A sound checkpoint; None: start anew.
        kept: The checkpoints that are there, up to that step, and the validation loss (or what else ranks them) of each.
    """

    path: Path
    resume_from: Path | None
    kept: dict[Path, float | None]

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"


@contextmanager
def claim_run_folder(settings: dict[str, Any]) -> Generator[RunFolder, None, None]:
    """Picks the folder and holds it until the run ends, however it ends. All ranks call; rank 0 decides.

    Args:
        settings: `exp_manager` of a training config: `explicit_log_dir`, or `exp_dir` and `name`; `resume_if_exists`,
            `resume_ignore_no_checkpoint`, `resume_from_checkpoint`.

    Raises:
        ConfigError: The folder cannot be written, another run uses it, or it holds a run that must not be written over.
        CheckpointError: There is no sound checkpoint to go on from.
    """
    decision: list[Any] = [None]
    held = None
    if torch.distributed.get_rank() == 0:
        try:
            path = _choose(settings)
            _refuse_foreign_files(path)
            held = _lock(path)
            resume_from = _checkpoint_to_resume(path, settings)
            decision[0] = RunFolder(path, resume_from, _set_newer_aside(path / "checkpoints", resume_from))
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
        if held is not None:
            held.close()


def _choose(settings: dict[str, Any]) -> Path:
    if settings.get("explicit_log_dir"):
        return Path(settings["explicit_log_dir"]).resolve()
    folder = Path(settings.get("exp_dir") or "nemo_experiments") / (settings.get("name") or "default")
    version = settings.get("version") or (None if settings.get("resume_if_exists") else time.strftime("%Y-%m-%d_%H-%M-%S"))
    return (folder / version if version else folder).resolve()


def _refuse_foreign_files(path: Path) -> None:
    strange = [] if (path / "checkpoints").is_dir() or not path.is_dir() else [p.name for p in path.iterdir() if p.is_file()]
    if strange:
        raise ConfigError(
            f"{path} holds files that are not of a run, such as {min(strange)}, and NeMo's exp_manager would move them away. Choose "
            "another exp_manager.explicit_log_dir."
        )


def _lock(path: Path) -> IO[str]:
    """Locks the folder for the life of this process."""
    another = "choose another exp_manager.explicit_log_dir."
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        file = acquire_lock(path / "checkpoints" / ".lock", f"The run folder {path}", f"Wait for that run, stop it, or {another}")
    except OSError as error:
        raise ConfigError(f"The run folder {path} cannot be written: {error.strerror}. C{another[1:]}") from error
    os.register_at_fork(after_in_child=file.close)  # a loader's worker may live some seconds longer
    return file


def _checkpoint_to_resume(path: Path, settings: dict[str, Any]) -> Path | None:
    named = settings.get("resume_from_checkpoint")
    if named and not (settings.get("resume_if_exists") and find_checkpoints(path / "checkpoints")):  # a requeued run has its own
        verify(Path(named))
        return Path(named).resolve()
    found = find_checkpoints(path / "checkpoints")
    if not settings.get("resume_if_exists"):
        if found:
            raise ConfigError(
                f"{path} already holds a run ({found[0].name}). Go on with it by exp_manager.resume_if_exists=true, or choose another "
                "exp_manager.explicit_log_dir."
            )
        return None
    newest, refused = newest_valid(path / "checkpoints")
    for error in refused:
        warnings.warn(f"{error} It is passed over.", stacklevel=2)
    if newest is None and found:
        raise CheckpointError(f"None of the {len(found)} checkpoints in {path} is sound. The newest: {refused[0]}")
    if newest is None and not settings.get("resume_ignore_no_checkpoint", True):
        raise CheckpointError(f"{path} holds no checkpoint to go on from, and exp_manager.resume_ignore_no_checkpoint is false.")
    return newest


def _set_newer_aside(checkpoints: Path, resume_from: Path | None) -> dict[Path, float | None]:
    """Renames checkpoints that lie beyond the step to go on from, damaged or not: the run will write its own. Returns the others."""
    step = CheckpointManifest.read(resume_from).step if resume_from else -1
    for partial in checkpoints.glob(".step=*.partial"):  # of a run that was killed while it wrote or removed one
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
            warnings.warn(f"{path} is not gone on from, and is kept as {aside.name}.", stacklevel=2)
    return kept
