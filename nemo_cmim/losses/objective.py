"""Objectives by name: which terms a training loss adds up, and with which weights.

Losses are sums over tokens and latent dimensions and a mean over molecules, so neither the micro-batch, nor the sequence length,
nor the number of devices moves the balance of the terms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ..config import ObjectiveConfig
from ..errors import ConfigError
from ..types import LossTerms, Posterior
from .contrastive import log_p_k1
from .gaussian import log_normal, log_standard_normal

__all__ = ["OBJECTIVES", "Objective", "ObjectiveOutput", "build_objective"]


class ObjectiveOutput(NamedTuple):
    """A training loss and its parts.

    Attributes:
        loss: float32 scalar, nats, mean over molecules: what is minimised.
        terms: The parts, per molecule.
    """

    loss: Tensor
    terms: LossTerms


Objective = Callable[[Tensor, Tensor, Posterior], ObjectiveOutput]
"""(log_p_x_given_z_B, z_BKD, posterior of z) -> ObjectiveOutput."""


def mim(log_p_x_given_z_B: Tensor, z_BKD: Tensor, posterior: Posterior) -> ObjectiveOutput:
    """A-MIM, i.e. Eq. 9 without log p_k1: -[log p(x|z) + 1/2 (log q(z|x) + log P(z))]."""
    log_q, log_p = log_normal(z_BKD, posterior), log_standard_normal(z_BKD)
    terms = LossTerms(log_p_x_given_z_B, log_q_z_given_x_B=log_q, log_p_z_B=log_p)
    return ObjectiveOutput(-(log_p_x_given_z_B + 0.5 * (log_q + log_p)).mean(), terms)


def cmim(log_p_x_given_z_B: Tensor, z_BKD: Tensor, posterior: Posterior, *, tau: float) -> ObjectiveOutput:
    """cMIM, Eq. 9: A-MIM and the contrastive term of Eq. 4."""
    loss, terms = mim(log_p_x_given_z_B, z_BKD, posterior)
    contrast_B = log_p_k1(z_BKD, tau)
    return ObjectiveOutput(loss - contrast_B.mean(), terms._replace(log_p_k1_B=contrast_B))


OBJECTIVES: dict[str, Callable[[ObjectiveConfig], Objective]] = {
    "cmim": lambda config: lambda log_p_x, z, posterior: cmim(log_p_x, z, posterior, tau=config.tau),
    "mim": lambda config: mim,
}
"""Name -> builder of the objective."""


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective that `config.name` stands for.

    Raises:
        ConfigError: An unknown name.
    """
    if config.name not in OBJECTIVES:
        raise ConfigError(f"Unknown objective {config.name!r}. Known: {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[config.name](config)
