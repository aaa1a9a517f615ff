"""Lightning strategy on Megatron's process groups: tensor x data parallelism, over NCCL on GPUs and gloo on CPUs."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from megatron.core import parallel_state

from ..config import ParallelConfig
from ..errors import ConfigError
from ..mcore.parallel import initialise, is_sharded
from .gradients import Gradients, MasterWeights
from .precision import MegatronPrecision

if TYPE_CHECKING:
    from .checkpoints.writer import CheckpointWriter

__all__ = ["MegatronStrategy"]


class MegatronStrategy(DDPStrategy):
    """Runs a model whose layers are Megatron's, on ranks that a launcher has started.

    Args:
        parallel: Sizes of the parallel groups.
        precision: What a step is computed in.
        writer: Writes checkpoints.
    """

    def __init__(self, parallel: ParallelConfig, precision: MegatronPrecision, writer: CheckpointWriter) -> None:
        super().__init__(precision_plugin=precision)
        self.parallel, self.precision, self.writer = parallel, precision, writer

    # ---- ranks

    def setup_distributed(self) -> None:
        """Starts the process groups; a second call does nothing.

        Raises:
            ConfigError: The processes that run are not those that the trainer was told of.
        """
        environment, asked = self.cluster_environment, self.num_processes * self.num_nodes
        assert environment is not None, "the trainer chooses one"
        arithmetic = f"trainer.devices {self.num_processes} x trainer.num_nodes {self.num_nodes} = {asked} processes"
        has_launcher = not isinstance(environment, LightningEnvironment)
        if asked > 1 and not has_launcher:
            program = " ".join(sys.orig_argv[1:])
            raise ConfigError(
                f"{arithmetic} are asked for, but this process runs alone. Start it with a launcher: torchrun "
                f"--nproc_per_node={self.num_processes} {program}"
            )
        running = environment.world_size() if has_launcher else 1
        if running != asked:
            raise ConfigError(f"{arithmetic} are asked for, but the launcher started {running}. Let the two agree.")
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)  # before the first message: NCCL sends from the current device
        if asked > 1:
            super().setup_distributed()
        initialise(self.parallel, device=self.root_device.type)

    def setup(self, trainer: Trainer) -> None:
        """Brings the model to its device, and in training its parameters to their precision, with fp32 main weights behind them."""
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            model = self.lightning_module
            assert model is not None
            parameters = MasterWeights(dict(model.network.named_parameters()), self.precision.dtype)
            self._share_initial_weights(parameters)
            model.master_weights = list(parameters.main.values())
            groups = parallel_state.get_data_parallel_group(), parallel_state.get_tensor_model_parallel_group()
            self.precision.parameters, self.precision.gradients = parameters, Gradients(parameters, *groups)
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    @staticmethod
    def _share_initial_weights(parameters: MasterWeights) -> None:
        """Gives all replicas of a weight the same start. Ranks draw them from one seed, but one that drew others would go unnoticed."""
        for main in parameters.main.values():
            if not is_sharded(main):
                source = parallel_state.get_tensor_model_parallel_src_rank()
                torch.distributed.broadcast(main.data, source, group=parallel_state.get_tensor_model_parallel_group())
            source = parallel_state.get_data_parallel_src_rank()
            torch.distributed.broadcast(main.data, source, group=parallel_state.get_data_parallel_group())
        parameters.update_model()

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Within it, gradients are kept for later micro-batches of the step."""
        gradients = self.precision.gradients
        assert gradients is not None
        gradients.is_last_micro_batch = False
        try:
            yield
        finally:
            gradients.is_last_micro_batch = True

    # ---- checkpoints

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Main weights and optimiser must be there to be read into."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: `save_checkpoint` collects weights by itself, each rank its shards."""
        return {}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Nothing, likewise."""
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: float | None = None) -> None:
        """Writes a sharded checkpoint. All ranks must call. It is complete when `self.writer` has finished.

        Args:
            checkpoint: Of Lightning.
            filepath: To be created.
            storage_options: The value that ranks it, for `CheckpointManifest.monitored`.
        """
        self.writer.save(self, checkpoint, Path(filepath), storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path) -> dict[str, Any]:
        """Reads weights and optimiser states into place, written at whatever parallel sizes; returns the rest."""
        state = self.writer.load(self, Path(checkpoint_path))
        assert self.lightning_module is not None
        _set_progress(state["loops"]["fit_loop"], state["global_step"], self.lightning_module.trainer.accumulate_grad_batches)
        return state

    def load_model_state_dict(self, checkpoint: dict[str, Any], strict: bool = True) -> None:
        """Nothing: `load_checkpoint` has done it."""

    def load_optimizer_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Nothing, likewise."""


def _set_progress(fit_loop: dict[str, Any], step: int, accumulation: int) -> None:
    """Lets Lightning's counters stand after a step. It counts micro-batches, of which a step may have had another number before."""
    micro_batches = step * accumulation
    progress = fit_loop["epoch_loop.batch_progress"]
    progress["is_last_batch"] = False
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(counts, micro_batches))
    optimizer_steps = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    for counts in optimizer_steps.values():
        counts.update(dict.fromkeys(counts, step))
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step  # the step under which it logs
