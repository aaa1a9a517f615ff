"""Runs cells, on Dask. A cell is resumed from its checkpoint after an interruption.

When it is complete, a cell writes its weights and then its results, each whole: a cell with results is finished. References (see
`references`) have only results.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks.report import hardware
from nemo_cmim.errors import DataError
from nemo_cmim.files import atomic_write, lock
from nemo_cmim.inference.device import device_of, multiply_exactly
from nemo_cmim.prepare.cluster import check_workers, start_workers
from nemo_cmim.signals import sigterm_raises

from .cell import Cell
from .data import Images, load, load_all
from .evaluation import evaluate
from .references import evaluate_reference
from .results import save_tensors, weights_of
from .training import check_counts, train

__all__ = ["Job", "one_thread", "run_cell", "run_grid"]


@dataclass(frozen=True)
class Job:
    """A cell, the folder of the image sets, the folder of its files, and its device ("cpu", "cuda"; None: a GPU if there is one)."""

    cell: Cell
    data: Path
    output: Path
    device: str | None = None

    @property
    def file(self) -> Path:
        """The result."""
        return self.output / f"{self.cell.name}.json"

    @property
    def checkpoint(self) -> Path:
        """The state of a run that is not finished."""
        return self.output / "unfinished" / f"{self.cell.name}.pt"

    @property
    def error(self) -> Path:
        """The error of a run that failed, with its message in the first line."""
        return self.output / "unfinished" / f"{self.cell.name}.error.txt"


def run_cell(job: Job) -> None:
    """Trains and evaluates a cell, and writes its weights and results, unless the results exist.

    One thread computes it, so that the result does not depend on how many cells run at the same time.

    Raises:
        ConfigError: If the device is not available, or another process runs the same cell.
        DataError: If the set cannot be read or has too few images, or a file or checkpoint of the cell is of different images.
        DivergenceError: If a loss is not finite.
    """
    device = device_of(job.device)
    multiply_exactly(device, "fp32")
    images = load(job.cell.data, job.data)
    job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with lock(job.checkpoint.with_suffix(".lock"), f"The cell {job.cell.name}", "Wait for it, or end it."), one_thread():
        if _is_finished(job, images):
            return
        measured = _reference(job.cell, images, device) if job.cell.is_reference else _trained(job, images, device)
        counts = {name: len(part) for name, part in (("train", images.train), ("valid", images.valid), ("test", images.test))}
        result = {
            "cell": job.cell.as_mapping(),
            **measured,
            "images": {**counts, "note": images.note, "sha256": images.sha256},
            "torch": torch.__version__,
            "device": device.type,
            "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else hardware(),
        }
        with atomic_write(job.file) as staging:
            staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        job.checkpoint.unlink(missing_ok=True)


def _trained(job: Job, images: Images, device: torch.device) -> dict[str, Any]:
    """Trains a network, writes its weights, and evaluates it."""
    trained = train(job.cell, images, job.checkpoint, device)
    begin = time.process_time()
    measured = evaluate(trained.network, images, job.cell)
    save_tensors(weights_of(job.file), {name: tensor.cpu() for name, tensor in trained.network.state_dict().items()})
    return {
        "parameters": trained.network.parameter_count,
        "best_step": trained.best_step,
        "validation": trained.history,
        **measured,
        "seconds": round(trained.seconds + time.process_time() - begin, 1),
    }


def _reference(cell: Cell, images: Images, device: torch.device) -> dict[str, Any]:
    begin = time.process_time()
    return {**evaluate_reference(cell, images, device), "seconds": round(time.process_time() - begin, 1)}


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which PyTorch, NumPy and scikit-learn compute with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _is_finished(job: Job, images: Images) -> bool:
    """Whether the cell has its file; an error if the file is of different images."""
    if not job.file.exists():
        return False
    found = json.loads(job.file.read_text(encoding="utf-8"))["images"]["sha256"]
    if found != images.sha256:
        raise DataError(
            f"{job.file} was computed with different images of {images.name} (SHA-256 {found[:12]}) than those in {job.data} "
            f"({images.sha256[:12]}). Use another output folder, or remove the file."
        )
    return True


def run_grid(jobs: Sequence[Job], *, processes: int | None, scheduler: str | None, say: Callable[[str], None]) -> dict[str, str]:
    """Runs the cells that have no file yet, the longest first, so that processes end at about the same time.

    Cells of sets that cannot be read are skipped. If a cell fails, its error is written into a file, and the others are run; the next
    call runs it again.

    Args:
        jobs: The cells; all have the same folders and device.
        processes: Processes on this machine; None or 1: this one.
        scheduler: Address of a Dask scheduler instead of processes on this machine. Its workers need this checkout on their path.
        say: Gets a line for each finished or failed cell, and for each skipped set.

    Returns:
        Names of the cells that failed, each with its error message.

    Raises:
        ConfigError: If the device of processes on this machine is not available; see also `check_workers` and `start_workers`.
        DataError: If no set can be read, a set has too few images for a cell, or a file is of different images.
        OSError: If an error cannot be written into its file, since the disk is full.
    """
    check_workers(processes, scheduler)
    if scheduler is None:
        device_of(jobs[0].device)
    total, todo = 0, []
    for images in load_all(dict.fromkeys(job.cell.data for job in jobs), jobs[0].data, say):
        for job in jobs:
            if job.cell.data == images.name:
                check_counts(job.cell, images)
                total += 1
                if not _is_finished(job, images):
                    todo.append(job)
    if not total:
        raise DataError(f"{jobs[0].data} has none of these image sets. `python -m examples.images data` lists their files.")
    say(f"{total} cells, {total - len(todo)} of them finished before.")
    if not todo:
        return {}
    todo.sort(key=lambda job: -job.cell.batch_size)
    todo[0].error.parent.mkdir(parents=True, exist_ok=True)
    failed = {}
    with sigterm_raises(), start_workers(processes or 1, scheduler, todo[0].output, "A grid of several processes") as workers:
        for number, job in enumerate(workers.run(_run_or_write_error, todo, starts_in_order=True), 1):
            if job.file.exists():  # perhaps by another grid, which this one ran into
                job.error.unlink(missing_ok=True)
            elif job.error.exists():
                failed[job.cell.name] = job.error.read_text(encoding="utf-8").split("\n", 1)[0]
            say(f"{number}/{len(todo)} {job.cell.name}{' failed' if job.cell.name in failed else ''}")
    return failed


def _run_or_write_error(job: Job) -> None:
    job.error.unlink(missing_ok=True)
    try:
        run_cell(job)
    except (ValueError, RuntimeError, OSError) as error:  # of this package, of PyTorch, or of a disk
        with atomic_write(job.error) as staging:
            staging.write_text(f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}", encoding="utf-8")
