"""Speed of a run and duration of the phases of a step: sent to the loggers, and written as one line of JSON per step."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from ..files import atomic_write
from ..mappings import finite
from ..mcore.parallel import runs_on_gpu
from ..types import MicroBatch
from .state import TrainingState

__all__ = ["Observation", "StepClock", "TimedLoader"]

_PHASES = ("data", "forward", "backward", "communication", "optimizer", "other")


class StepClock:
    """Sums the duration of each phase of a step.

    CUDA runs asynchronously. On a GPU, the durations are correct only in steps that synchronise with the GPU at each mark.

    Attributes:
        seconds: Duration of each phase since `reset`.
        synchronises: Whether `mark` waits for the GPU.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.synchronises = False
        self._last = time.perf_counter()

    def mark(self, phase: str, within: dict[str, float] | None = None) -> None:
        """Adds the time since the last mark to a phase.

        Args:
            phase: The phase that ends now.
            within: Seconds of this time that belong to other phases.
        """
        if self.synchronises:  # not run on a GPU yet
            torch.cuda.synchronize()
        now = time.perf_counter()
        within = within or {}
        for name, seconds in {phase: now - self._last - sum(within.values()), **within}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._last = now

    def reset(self) -> None:
        """Starts a step."""
        self.seconds = {}


class TimedLoader:
    """A loader that adds the time waited for each batch to a clock.

    Args:
        loader: The loader of the training split.
        clock: Gets the phase `data`.
    """

    def __init__(self, loader: DataLoader[MicroBatch], clock: StepClock) -> None:
        self.loader, self.clock = loader, clock

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[MicroBatch]:
        batches = iter(self.loader)
        while True:
            self.clock.mark("other")
            batch = next(batches, None)
            self.clock.mark("data")
            if batch is None:
                return
            yield batch


class Observation(Callback):
    """Measures steps and writes `steps.jsonl`.

    Args:
        clock: The clock that the training loader also uses.
        file: The file to write: one line of JSON per step, written by rank 0.
    """

    def __init__(self, clock: StepClock, file: Path) -> None:
        self.clock, self.file = clock, file
        self._step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes the lines of steps that the resumed run repeats."""
        self._step = trainer.global_step
        if trainer.is_global_zero:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self._step]
            with atomic_write(self.file) as file:
                file.write_text("".join(kept), encoding="utf-8")
        self.clock.mark("other")
        self.clock.reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the phase `forward`."""
        self.clock.mark("other")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """Ends the phase `forward`."""
        self.clock.mark("forward")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the phase `backward`, which overlaps with most of the communication."""
        self.clock.mark("backward")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a validation, which does not count as a phase of a step."""
        self.clock.mark("validation")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Writes the line of a step."""
        if trainer.global_step == self._step:
            self.clock.mark("other")
            return  # between micro-batches
        self._step = trainer.global_step
        state: TrainingState = pl_module.training_state
        self.clock.mark("optimizer", {"communication": state.gradients.waited_s})
        seconds = {phase: self.clock.seconds.get(phase, 0.0) for phase in _PHASES}
        self.clock.reset()
        self.clock.synchronises = runs_on_gpu() and (self._step + 1) % trainer.log_every_n_steps == 0
        totals = pl_module.step_totals
        duration = sum(seconds.values())
        rates = {f"{name}_per_second": totals[name] / duration for name in ("molecules", "tokens", "flops")}
        memory = _peak_memory_bytes()
        performance = {"seconds": duration, **{f"seconds_{p}": s for p, s in seconds.items()}, **rates, "memory_bytes": memory}
        if self._step % trainer.log_every_n_steps == 0:
            pl_module.log_dict({f"perf/{name}": value for name, value in performance.items()})
        if trainer.is_global_zero:
            update = {"lr": state.optimizer.param_groups[0]["lr"], "gradient_norm": float(state.gradients.norm)}
            update |= {"loss_scale": state.loss_scale.scale, "skipped_steps": state.loss_scale.skipped}
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite({"step": self._step, **totals, **update, **performance}), allow_nan=False) + "\n")


def _peak_memory_bytes() -> float:
    """Peak memory of this rank so far: of the GPU, or of the process on a CPU."""
    if runs_on_gpu():  # not run on a GPU yet
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
