"""Lightning strategy on Megatron's process groups."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from ..config import ParallelConfig
from ..errors import ConfigError
from ..mcore.parallel import initialise

__all__ = ["MegatronStrategy"]


class MegatronStrategy(DDPStrategy):
    """Runs a model whose layers are Megatron's. One process for now; tensor and data parallelism over several come here.

    Args:
        parallel: Sizes of the parallel groups.
        **kwargs: As `DDPStrategy` takes them.
    """

    def __init__(self, parallel: ParallelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parallel = parallel

    def setup_distributed(self) -> None:
        """Starts the process groups.

        Raises:
            ConfigError: More than one process was asked for.
        """
        if self.num_processes * self.num_nodes != 1 or self.parallel.tensor_model_parallel_size != 1:
            raise ConfigError(
                f"Training runs on one device in this version, found {self.num_processes} devices on {self.num_nodes} nodes with "
                f"parallel.tensor_model_parallel_size {self.parallel.tensor_model_parallel_size}. Set trainer.devices=1, "
                "trainer.num_nodes=1 and model.parallel.tensor_model_parallel_size=1."
            )
        initialise(self.parallel)
        super().setup_distributed()

    def configure_ddp(self) -> None:
        """A single process needs no gradient reduction, so the model stays as it is.

        With several, `broadcast_buffers` must be False: the queue of past latents is each rank's own under local negatives.
        """
