"""The paper's objectives as functions of tensors. Nothing here knows a network, Megatron or NeMo."""

from .contrastive import log_p_k1
from .gaussian import log_normal, log_standard_normal
from .objective import OBJECTIVES, Objective, ObjectiveOutput, build_objective
from .reconstruction import log_p_x_given_z

__all__ = [
    "OBJECTIVES",
    "Objective",
    "ObjectiveOutput",
    "build_objective",
    "log_normal",
    "log_p_k1",
    "log_p_x_given_z",
    "log_standard_normal",
]
