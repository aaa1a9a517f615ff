"""The paper's objectives as functions of tensors, independent of networks, Megatron and NeMo."""

from .candidates import Candidates, gather_with_gradient
from .contrastive import contrast, info_nce, log_p_k1
from .gaussian import kl_to_standard_normal, log_normal, log_standard_normal
from .objective import OBJECTIVES, Composition, Objective, ObjectiveOutput, build_objective
from .properties import log_p_bits, log_p_values, property_terms
from .reconstruction import log_bernoulli, log_p_x_given_z

__all__ = [
    "OBJECTIVES",
    "Candidates",
    "Composition",
    "Objective",
    "ObjectiveOutput",
    "build_objective",
    "contrast",
    "gather_with_gradient",
    "info_nce",
    "kl_to_standard_normal",
    "log_bernoulli",
    "log_normal",
    "log_p_bits",
    "log_p_k1",
    "log_p_values",
    "log_p_x_given_z",
    "log_standard_normal",
    "property_terms",
]
