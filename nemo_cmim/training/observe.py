"""How fast a run is, and where its time goes: to the loggers, and one line of JSON per step."""

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

from ..mcore.parallel import runs_on_gpu
from ..types import TokenBatch
from .state import TrainingState

__all__ = ["Observation", "StepClock", "TimedLoader"]

_PARTS = ("data", "forward", "backward", "communication", "optimizer", "other")


class StepClock:
    """Adds up the time that each part of a step takes.

    A GPU works behind the program's back, so there parts are right only in steps that wait for it at each mark.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.waits_for_gpu = False
        self._last = time.perf_counter()

    def mark(self, part: str, of_it: dict[str, float] | None = None) -> None:
        """Counts the time since the last mark as `part`, less what `of_it` counts as other parts."""
        if self.waits_for_gpu:  # not run on a GPU yet
            torch.cuda.synchronize()
        now = time.perf_counter()
        of_it = of_it or {}
        for name, seconds in {part: now - self._last - sum(of_it.values()), **of_it}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._last = now

    def reset(self) -> None:
        """Begins a step."""
        self.seconds = {}


class TimedLoader:
    """A loader that tells a clock how long each batch was waited for."""

    def __init__(self, loader: DataLoader[TokenBatch], clock: StepClock) -> None:
        self.loader, self.clock = loader, clock

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[TokenBatch]:
        batches = iter(self.loader)
        while True:
            self.clock.mark("other")
            batch = next(batches, None)
            self.clock.mark("data")
            if batch is None:
                return
            yield batch


class Observation(Callback):
    """Measures steps, and writes `steps.jsonl`.

    Args:
        clock: Shared with the loader of training.
        file: One line of JSON for each optimiser step, written by rank 0.
    """

    def __init__(self, clock: StepClock, file: Path) -> None:
        self.clock, self.file = clock, file
        self._step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the lines of steps that will be done again."""
        self._step = trainer.global_step
        if trainer.is_global_zero:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self._step]
            fresh = self.file.with_suffix(".new")
            fresh.write_text("".join(kept), encoding="utf-8")
            fresh.replace(self.file)
        self.clock.mark("other")
        self.clock.reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before forward."""
        self.clock.mark("other")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """After forward."""
        self.clock.mark("forward")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After backward, which hides a part of the communication."""
        self.clock.mark("backward")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is no part of a step."""
        self.clock.mark("validation")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Writes a step down."""
        if trainer.global_step == self._step:
            self.clock.mark("other")
            return  # between micro-batches
        self._step = trainer.global_step
        state: TrainingState = pl_module.training_state
        self.clock.mark("optimizer", {"communication": state.gradients.waited_s})
        seconds = {part: self.clock.seconds.get(part, 0.0) for part in _PARTS}
        self.clock.reset()
        self.clock.waits_for_gpu = runs_on_gpu() and (self._step + 1) % trainer.log_every_n_steps == 0
        totals = pl_module.step_totals
        whole = sum(seconds.values())
        rates = {f"{name}_per_second": totals[name] / whole for name in ("molecules", "tokens", "flops")}
        memory = _peak_memory_bytes()
        performance = {"seconds": whole, **{f"seconds_{part}": s for part, s in seconds.items()}, **rates, "memory_bytes": memory}
        if self._step % trainer.log_every_n_steps == 0:
            pl_module.log_dict({f"perf/{name}": value for name, value in performance.items()})
        if trainer.is_global_zero:
            update = {"lr": state.optimizer.param_groups[0]["lr"], "gradient_norm": float(state.gradients.norm)}
            update |= {"loss_scale": state.loss_scale.scale, "skipped_steps": state.loss_scale.skipped}
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self._step, **totals, **update, **performance}) + "\n")


def _peak_memory_bytes() -> float:
    """Of this rank so far: of the GPU, or of the process."""
    if runs_on_gpu():  # not run on a GPU yet
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
