"""The state of a training run, which the checkpoint writer, the model and the observer share."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from ..config import ModelConfig
from ..losses import Objective
from ..observed import PropertyTable
from ..tokenizers import Vocabulary
from .gradients import Gradients, MasterWeights
from .precision import LossScale

__all__ = ["TrainingState"]


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The state of a training run. `MegatronStrategy.setup` builds it once, when all parts exist.

    Attributes:
        parameters: The network's weights and the fp32 master weights.
        gradients: Their gradients, with the norm of the last step.
        loss_scale: Factor of the loss in fp16 training.
        optimizer: Updates the master weights.
        objective: Loss function; it holds the queue of negatives, if there is one.
        config: Settings of the model.
        order: Values that determine the molecules of each step: seed, number of molecules, global batch size.
        vocabulary: Vocabulary of the model and of the training data.
        properties: Table of the observed properties that heads of the network predict; None without heads.
    """

    parameters: MasterWeights
    gradients: Gradients
    loss_scale: LossScale
    optimizer: Optimizer
    objective: Objective
    config: ModelConfig
    order: dict[str, int]
    vocabulary: Vocabulary
    properties: PropertyTable | None = None
