"""Lightning callback that decides when checkpoints are written and which are kept, and exports the model of a finished run."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ...errors import CheckpointError, ConfigError
from ...mappings import check
from ..preemption import Preempted, Preemption
from .export import export_checkpoint
from .format import folder_name
from .run_folder import RunFolder
from .writer import CheckpointWriter

__all__ = ["CheckpointConfig", "Checkpointing"]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """`exp_manager.checkpoint_callback_params` of a training config. The names are NeMo's where NeMo has the setting."""

    monitor: str = "val_loss"  # logged value that ranks checkpoints
    mode: str = "min"  # min | max
    save_top_k: int = 3  # number of best checkpoints to keep
    keep_last: int = 2  # number of newest checkpoints to keep
    every_n_train_steps: int | None = None  # steps between checkpoints, in addition to those after each validation
    save_best_model: bool = True  # export the best checkpoint by `monitor`; false: the last
    save_nemo_on_train_end: bool = True
    async_save: bool = True  # training continues while a checkpoint is written

    def __post_init__(self) -> None:
        where = "exp_manager.checkpoint_callback_params"
        check(self.mode in ("min", "max"), f"{where}.mode must be min | max, found {self.mode!r}.")
        check(self.save_top_k >= 0, f"{where}.save_top_k must be at least 0, found {self.save_top_k}.")
        check(self.keep_last >= 1, f"{where}.keep_last must be at least 1, found {self.keep_last}.")
        every = self.every_n_train_steps
        check(every is None or every >= 1, f"{where}.every_n_train_steps must be at least 1 or null, found {every}.")


class Checkpointing(Callback):
    """Saves after each validation, every `every_n_train_steps` steps, at the end of training, and when the run is preempted.

    Args:
        config: Settings.
        writer: The writer of the strategy.
        run: The folder of the run, with the checkpoints in it: a resumed run also ranks these.
        name: Name of the `.nemo` file, without suffix.
    """

    def __init__(self, config: CheckpointConfig, writer: CheckpointWriter, run: RunFolder, name: str) -> None:
        self.config, self.writer, self.folder = config, writer, run.checkpoints
        self.nemo_file = self.folder / f"{name}.nemo"
        self._preemption = Preemption()
        self._kept = dict(run.kept)
        self._step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Installs signal handlers. Lightning has set its own before, and restores the earlier handlers after the run."""
        self._preemption.listen()
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves a checkpoint if one is due. Ends the run if any rank has received a signal.

        Raises:
            Preempted: If any rank has received a signal. The checkpoint is written.
            CheckpointError: If a checkpoint could not be written.
        """
        if trainer.global_step == self._step:
            return  # between micro-batches
        self._step = trainer.global_step
        self._end_if_preempted(trainer, pl_module)
        every = self.config.every_n_train_steps
        # a validation after this step saves the checkpoint with its loss
        validation_follows = trainer.enable_validation and (batch_idx + 1) % trainer.val_check_batch == 0
        if every and self._step % every == 0 and not validation_follows:
            self._save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Ends the run if any rank has received a signal: validation may take longer than the notice period.

        Raises:
            Preempted: If any rank has received a signal. The checkpoint is written.
        """
        if not trainer.sanity_checking:
            self._end_if_preempted(trainer, pl_module)

    def _end_if_preempted(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signal_number = self._preemption.agreed(pl_module.device)
        if not signal_number:
            return
        path = self._save(trainer)
        self.writer.wait()
        trainer.strategy.barrier("preempted")  # no rank ends early: a scheduler may then kill the others
        if trainer.is_global_zero:
            message = (
                f"Signal {signal_number}: step {trainer.global_step} is saved in {path}. Run the same command again to resume."
            )
            print(message, file=sys.stderr, flush=True)
        raise Preempted

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves a checkpoint with the monitored value.

        Raises:
            ConfigError: If `checkpoint_callback_params.monitor` is not a logged value.
        """
        if not trainer.sanity_checking:
            if self.config.monitor not in trainer.callback_metrics:
                known = ", ".join(sorted(map(str, trainer.callback_metrics)))
                raise ConfigError(
                    f"exp_manager.checkpoint_callback_params.monitor is {self.config.monitor!r}, which is not logged. Logged: {known}."
                )
            value = float(trainer.callback_metrics[self.config.monitor])
            if not math.isfinite(value):
                warnings.warn(
                    f"{self.config.monitor} is {value} at step {trainer.global_step}: the checkpoint is not ranked.", stacklevel=2
                )
            self._save(trainer, value if math.isfinite(value) else None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last step."""
        self._save(trainer)

    def finish(self, trainer: Trainer) -> None:
        """Waits until all checkpoints are written, and exports the model of a finished run to a `.nemo` file.

        Raises:
            CheckpointError: If a checkpoint could not be written, or if none could be exported.
        """
        self.writer.wait()
        failure = self._export() if self.config.save_nemo_on_train_end and trainer.is_global_zero else None
        failure = trainer.strategy.broadcast(failure)
        if failure:
            raise CheckpointError(failure)

    def _export(self) -> str | None:
        """Exports the best valid checkpoint. Returns the reason if no checkpoint could be exported."""
        ranked = self._ranked() if self.config.save_best_model else []
        newest = sorted(self._kept.keys() - set(ranked), reverse=True)
        failure = "There is no checkpoint to export."
        for path in [*ranked, *newest]:
            try:
                export_checkpoint(path, self.nemo_file)
            except (CheckpointError, OSError) as error:
                failure = f"{path.name} could not be exported to {self.nemo_file}: {error}"
                warnings.warn(f"{failure} Trying the next best checkpoint.", stacklevel=2)
            else:
                return None
        return failure

    def _save(self, trainer: Trainer, monitored: float | None = None) -> Path:
        path = self.folder / folder_name(trainer.global_step)
        if path not in self._kept:
            values = trainer._checkpoint_connector.dump_checkpoint()  # Trainer.save_checkpoint has no place for `monitored`
            trainer.strategy.save_checkpoint(values, path, monitored=monitored)
            self._kept[path] = monitored
            self._prune()
        return path

    def _ranked(self) -> list[Path]:
        """The checkpoints with a monitored value, the best first. Equal values are sorted by step."""
        sign = 1 if self.config.mode == "min" else -1
        return [path for _, path in sorted((sign * value, path) for path, value in self._kept.items() if value is not None)]

    def _prune(self) -> None:
        keep = set(sorted(self._kept)[-self.config.keep_last :]) | set(self._ranked()[: self.config.save_top_k])
        for path in self._kept.keys() - keep:
            self.writer.remove(path)
            del self._kept[path]
