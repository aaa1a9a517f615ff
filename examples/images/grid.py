"""Runs cells: each a JSON file that appears whole, skipped if it exists, resumed from its checkpoint after an interruption; on Dask."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nemo_cmim.errors import DataError
from nemo_cmim.files import atomic_write, lock
from nemo_cmim.prepare.cluster import start_workers
from nemo_cmim.signals import sigterm_raises

from .cell import Cell
from .data import load
from .evaluation import evaluate
from .training import train

__all__ = ["Job", "available", "read_cells", "run_cell", "run_grid"]


@dataclass(frozen=True)
class Job:
    """A cell, the folder of the image sets, and the folder that its file is written to."""

    cell: Cell
    data: Path
    output: Path

    @property
    def file(self) -> Path:
        """The result."""
        return self.output / f"{self.cell.name}.json"

    @property
    def checkpoint(self) -> Path:
        """The state of a run that is not finished."""
        return self.output / "unfinished" / f"{self.cell.name}.pt"


def run_cell(job: Job) -> None:
    """Trains and evaluates a cell, and writes its file, unless the file exists.

    One thread computes it, so that the result does not depend on how many cells run at the same time.

    Raises:
        DataError: If the set is missing, or another process runs the same cell.
        DivergenceError: If a loss is not finite.
    """
    if job.file.exists():
        return
    job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with lock(job.checkpoint.with_suffix(".lock"), f"The cell {job.cell.name}", "Wait for it, or end it."):
            images = load(job.cell.data, job.data)
            trained = train(job.cell, images, job.checkpoint)
            result = {
                "cell": job.cell.as_mapping(),
                "parameters": trained.network.parameter_count,
                "best_step": trained.best_step,
                "validation": trained.history,
                **evaluate(trained.network, images, job.cell),
                "images": {"train": len(images.train), "valid": len(images.valid), "test": len(images.test), "note": images.note},
                "seconds": round(trained.seconds, 1),
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
            with atomic_write(job.file) as staging:
                staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            job.checkpoint.unlink(missing_ok=True)
    finally:
        torch.set_num_threads(threads)


def available(names: Iterable[str], folder: Path, say: Callable[[str], None]) -> list[str]:
    """Names of the sets that can be read; the others are named with the reason."""
    found = []
    for name in names:
        try:
            load(name, folder)
            found.append(name)
        except DataError as error:
            say(f"skipped {name}: {error}")
    return found


def run_grid(jobs: Sequence[Job], *, processes: int, scheduler: str | None, say: Callable[[str], None]) -> int:
    """Runs the cells that have no file yet, the longest first, so that processes end at about the same time.

    Args:
        jobs: The cells; all write to the same folder.
        processes: Processes on this machine; 1: in this one.
        scheduler: Address of a Dask scheduler in place of processes on this machine. Its workers need this checkout on their path.
        say: Gets a line for each finished cell.

    Returns:
        Number of cells that were run.

    Raises:
        ConfigError: See `start_workers`.
        DataError: See `run_cell`.
    """
    todo = sorted((job for job in jobs if not job.file.exists()), key=lambda job: -job.cell.batch_size * job.cell.settings.steps)
    say(f"{len(jobs)} cells, {len(jobs) - len(todo)} of them finished before.")
    if not todo:
        return 0
    output = todo[0].output
    output.mkdir(parents=True, exist_ok=True)
    with sigterm_raises(), start_workers(processes, scheduler, output, "A grid of several processes") as workers:
        for number, job in enumerate(workers.run(run_cell, todo), 1):
            say(f"{number}/{len(todo)} {job.cell.name}")
    return len(todo)


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """The results of all finished cells of a folder, by name; files of a version that stated other fields are left out with a warning.

    Raises:
        DataError: If there is none, or a file is not JSON.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if f"{Cell.from_mapping(result['cell']).name}.json" != path.name:
                raise KeyError(path.name)
            found.append(result)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} is not JSON: {error}.") from error
        except (KeyError, TypeError):
            warnings.warn(f"{path.name} is no cell of this version, and is left out.", stacklevel=2)
    if not found:
        raise DataError(f"{folder} has no finished cell. Run: python -m examples.images grid --help")
    return found
