"""Lightning strategy on Megatron's process groups: tensor and data parallelism, over NCCL on GPUs and gloo on CPUs."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from megatron.core import parallel_state

from ..config import ParallelConfig
from ..errors import ConfigError
from ..mcore.parallel import initialise, is_sharded
from .checkpoints.writer import CheckpointWriter
from .gradients import Gradients, MasterWeights
from .precision import LossScale, MegatronPrecision
from .state import TrainingState

__all__ = ["MegatronStrategy"]


class MegatronStrategy(DDPStrategy):
    """Trains a model with Megatron layers on the processes that a launcher has started.

    Args:
        parallel: Sizes of the parallel groups.
        dtype: Type of the network's parameters in forward and backward.
        writer: Writes and reads checkpoints.

    Attributes:
        training_state: Set by `setup` when a training run starts.
    """

    training_state: TrainingState

    def __init__(self, parallel: ParallelConfig, dtype: torch.dtype, writer: CheckpointWriter) -> None:
        super().__init__()
        self.parallel, self.dtype, self.writer = parallel, dtype, writer

    # ---- ranks

    def setup_distributed(self) -> None:
        """Starts the process groups. A second call has no effect.

        Raises:
            ConfigError: If the number of running processes differs from `trainer.devices` x `trainer.num_nodes`.
        """
        environment, expected = self.cluster_environment, self.num_processes * self.num_nodes
        product = f"trainer.devices {self.num_processes} x trainer.num_nodes {self.num_nodes} = {expected} processes"
        has_launcher = not isinstance(environment, LightningEnvironment)
        if expected > 1 and not has_launcher:
            program = " ".join(sys.orig_argv[1:])
            raise ConfigError(
                f"{product} are expected, but only this process is running. Start it with a launcher: torchrun "
                f"--nproc_per_node={self.num_processes} {program}"
            )
        running = environment.world_size() if has_launcher else 1
        if running != expected:
            raise ConfigError(
                f"{product} are expected, but the launcher started {running}. Change trainer.devices and trainer.num_nodes, or the "
                "number of processes that the launcher starts."
            )
        self.accelerator.setup_device(self.root_device)  # before the first message: NCCL sends from the current device
        if expected > 1:
            super().setup_distributed()
        initialise(self.parallel, device=self.root_device.type)

    def setup(self, trainer: Trainer) -> None:
        """Moves the model to its device. For training, also builds the training state and gives it to the model."""
        self.accelerator.setup(trainer)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
            state = self.training_state = self.lightning_module.training_state = self._build_state()
            self.precision_plugin = MegatronPrecision(state.parameters, state.gradients, state.loss_scale)
        self.setup_precision_plugin()

    def _build_state(self) -> TrainingState:
        model, optimizer = self.lightning_module, self.optimizers[0]
        parameters = MasterWeights(dict(model.network.named_parameters()), self.dtype)
        self._share_initial_weights(parameters)
        parameters.attach_to(optimizer)
        groups = parallel_state.get_data_parallel_group(), parallel_state.get_tensor_model_parallel_group()
        return TrainingState(
            parameters=parameters,
            gradients=Gradients(parameters, *groups),
            loss_scale=LossScale(model.model_config.loss_scale, is_dynamic=self.dtype == torch.float16),
            optimizer=optimizer,
            objective=model.objective,
            config=model.model_config,
            order=model.order,
            vocabulary=model.tokenizer.vocabulary,
            properties=model.property_table,
        )

    @staticmethod
    def _share_initial_weights(parameters: MasterWeights) -> None:
        """Copies the initial weights of the first rank to its replicas.

        All ranks draw initial weights from the same seed. Without this copy, a rank that drew different ones would go unnoticed.
        """
        for master in parameters.master.values():
            if not is_sharded(master):
                source = parallel_state.get_tensor_model_parallel_src_rank()
                torch.distributed.broadcast(master.data, source, group=parallel_state.get_tensor_model_parallel_group())
            source = parallel_state.get_data_parallel_src_rank()
            torch.distributed.broadcast(master.data, source, group=parallel_state.get_data_parallel_group())
        parameters.update_network()

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Context in which gradients are accumulated and not averaged, for all micro-batches of a step except the last."""
        gradients = self.training_state.gradients
        gradients.is_last_micro_batch = False
        try:
            yield
        finally:
            gradients.is_last_micro_batch = True

    # ---- checkpoints

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """True: a checkpoint is read into the master weights and the optimiser, which `setup` builds."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns an empty dict: `save_checkpoint` collects the weights, each rank its own shards."""
        return {}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Returns an empty dict: `save_checkpoint` collects the optimiser states."""
        return {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None, *, monitored: float | None = None
    ) -> None:
        """Writes a sharded checkpoint. All ranks must call it. The checkpoint is complete after `writer.wait()`.

        Args:
            checkpoint: The values that Lightning saves.
            filepath: The folder to create.
            storage_options: Ignored; part of Lightning's signature.
            monitored: The value that ranks the checkpoint; see `CheckpointManifest`.
        """
        self.writer.save(self.training_state, checkpoint, Path(filepath), monitored)

    def load_checkpoint(self, checkpoint_path: str | Path) -> dict[str, Any]:
        """Loads weights and optimiser states, written at any parallel sizes, and returns the values that Lightning saved."""
        values = self.writer.load(self.training_state, Path(checkpoint_path))
        _set_progress(values["loops"]["fit_loop"], values["global_step"], self.lightning_module.trainer.accumulate_grad_batches)
        return values

    def load_model_state_dict(self, checkpoint: dict[str, Any], strict: bool = True) -> None:
        """Does nothing: `load_checkpoint` has loaded the weights."""

    def load_optimizer_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Does nothing: `load_checkpoint` has loaded the optimiser states."""


def _set_progress(fit_loop: dict[str, Any], step: int, accumulation: int) -> None:
    """Sets Lightning's counters to their values after `step`.

    They count micro-batches. The run that wrote the checkpoint may have had a different number of micro-batches per step.
    """
    micro_batches = step * accumulation
    progress = fit_loop["epoch_loop.batch_progress"]
    progress["is_last_batch"] = False
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(counts, micro_batches))
    optimizer_steps = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    for counts in optimizer_steps.values():
        counts.update(dict.fromkeys(counts, step))
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step  # the step number that Lightning logs
