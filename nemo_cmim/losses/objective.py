"""Objectives by name: which terms a training loss adds up, and with which weights.

Losses are sums over tokens and latent dimensions and a mean over molecules, so neither the micro-batch, nor the sequence length,
nor the number of devices moves the balance of the terms.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from ..config import NetworkConfig, ObjectiveConfig
from ..errors import ConfigError
from ..types import LossTerms, Posterior
from .candidates import Candidates
from .contrastive import contrast, unit
from .gaussian import kl_to_standard_normal, log_normal, log_standard_normal

__all__ = ["OBJECTIVES", "Composition", "Objective", "ObjectiveOutput", "build_objective"]

DENSITY_TERMS = {"log_q_z_given_x", "log_p_z", "kl"}  # need q(z|x) to have a variance
CONTRASTIVE_TERMS = {"log_p_k1": True, "log_p_k1_sum": False, "log_p_positive": False}  # is it the mean over negatives?


@dataclass(frozen=True)
class Composition:
    """What is maximised: terms (fields of `LossTerms`) with their weights.

    Attributes:
        weights: Weight of each term.
        full_length: The encoder has no bottleneck.
        free_beta: `ObjectiveConfig.beta` replaces the weight of -KL; left unset, it is 1 / (K D).
    """

    weights: Mapping[str, float]
    full_length: bool = False
    free_beta: bool = False

    @property
    def decodes(self) -> bool:
        """Needs a decoder."""
        return "log_p_x_given_z" in self.weights

    @property
    def is_stochastic(self) -> bool:
        """Needs a density q(z|x)."""
        return bool(DENSITY_TERMS & self.weights.keys())

    @property
    def is_contrastive(self) -> bool:
        """Compares molecules with each other."""
        return bool(CONTRASTIVE_TERMS.keys() & self.weights.keys())

    @property
    def needs_positive(self) -> bool:
        """Takes a second view of each molecule."""
        return "log_p_positive" in self.weights


_RECONSTRUCTION = {"log_p_x_given_z": 1.0}
_MIM = _RECONSTRUCTION | {"log_q_z_given_x": 0.5, "log_p_z": 0.5}
_VAE = _RECONSTRUCTION | {"kl": -1.0}
_CONTRAST = {"log_p_k1": 1.0}

OBJECTIVES: dict[str, Composition] = {
    "cmim": Composition(_MIM | _CONTRAST),  # Eq. 9
    "mim": Composition(_MIM),  # Eq. 9 without log p_k1: A-MIM
    "vae": Composition(_VAE),
    "beta_vae": Composition(_VAE, free_beta=True),  # MolVAE
    "ae": Composition(_RECONSTRUCTION),  # Perceiver AE
    "bart": Composition(_RECONSTRUCTION, full_length=True),  # MegaMolBART
    "infonce": Composition({"log_p_positive": 1.0}),  # Eq. 1
    "cmim_sum": Composition(_MIM | {"log_p_k1_sum": 1.0}),  # cMIM-Sigma
    "infonce_x": Composition({"log_p_k1_sum": 1.0}),  # Eq. 1 with each latent as its own positive
    "cae": Composition(_RECONSTRUCTION | _CONTRAST),
    "cvae": Composition(_VAE | _CONTRAST),
}
"""Name -> composition (Sec. 2.2, 3, 3.6, D.2)."""


class ObjectiveOutput(NamedTuple):
    """A training loss and its parts.

    Attributes:
        loss: float32 scalar, nats, mean over molecules: what is minimised.
        terms: The parts, per molecule.
    """

    loss: Tensor
    terms: LossTerms


class Objective(nn.Module):
    """A training loss. Its state is the queue of past latents, if it has one.

    Args:
        composition: Terms and weights.
        weights: Those of `composition`, with the settled weight of KL.
        tau: Temperature of contrastive terms.
        candidates: Where their negatives come from.
    """

    def __init__(self, composition: Composition, weights: Mapping[str, float], tau: float, candidates: Candidates) -> None:
        super().__init__()
        self.composition, self.weights, self.tau, self.candidates = composition, weights, tau, candidates

    def forward(
        self, log_p_x_given_z_B: Tensor | None, z_BKD: Tensor, posterior: Posterior, positive_BKD: Tensor | None = None
    ) -> ObjectiveOutput:
        """The loss of a batch.

        Args:
            log_p_x_given_z_B: From the decoder; None if the network has none.
            z_BKD: Latents: drawn from `posterior`, or its mean.
            posterior: q(z|x).
            positive_BKD: Latents of the second view, if `composition.needs_positive`.
        """
        terms = {name: self._term(name, log_p_x_given_z_B, z_BKD, posterior, positive_BKD) for name in self.weights}
        total_B = torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum(0)
        return ObjectiveOutput(-total_B.mean(), LossTerms(**{f"{name}_B": term for name, term in terms.items()}))

    def _term(
        self, name: str, log_p_x_given_z_B: Tensor | None, z_BKD: Tensor, posterior: Posterior, positive_BKD: Tensor | None
    ) -> Tensor:
        if name == "log_p_x_given_z":
            assert log_p_x_given_z_B is not None, "the network was checked to have a decoder"
            return log_p_x_given_z_B
        if name == "log_q_z_given_x":
            return log_normal(z_BKD, posterior)
        if name == "log_p_z":
            return log_standard_normal(z_BKD)
        if name == "kl":
            return kl_to_standard_normal(posterior)
        anchor_BH = unit(z_BKD)
        candidate_CH, first = self.candidates(anchor_BH if positive_BKD is None else unit(positive_BKD))
        return contrast(anchor_BH, candidate_CH, self.tau, mean_of_negatives=CONTRASTIVE_TERMS[name], first=first)


def build_objective(
    config: ObjectiveConfig, network: NetworkConfig | None = None, *, group: ProcessGroup | None = None
) -> Objective:
    """The objective that `config.name` stands for.

    Args:
        config: Name and settings.
        network: The network that it will train; None is the default one.
        group: Data-parallel ranks, for `config.negatives="global"`.

    Raises:
        ConfigError: An unknown name, or a network that the objective cannot train.
    """
    network = NetworkConfig() if network is None else network
    if config.name not in OBJECTIVES:
        raise ConfigError(f"Unknown objective {config.name!r}. Known: {', '.join(OBJECTIVES)}.")
    composition = OBJECTIVES[config.name]
    _check_network(config.name, composition, network)
    _warn_of_idle_settings(config, composition)
    weights = dict(composition.weights)
    if composition.free_beta:
        weights["kl"] = -(config.beta or 1.0 / (network.latents * network.hidden_size))
    candidates = Candidates(
        network.latents * network.hidden_size,
        queue=config.queue if composition.is_contrastive else 0,
        group=group if config.negatives == "global" else None,
    )
    return Objective(composition, weights, config.tau, candidates)


def _check_network(name: str, composition: Composition, network: NetworkConfig) -> None:
    """Each part of the network must have a use, and each term what it needs."""
    wrong = None
    if composition.full_length == network.has_bottleneck:
        wanted = "transformer" if composition.full_length else "perceiver or hybrid"
        wrong = f"network.encoder is {network.encoder}; set it to {wanted}"
    elif composition.is_stochastic != network.is_stochastic:
        wrong = f"network.posterior is {network.posterior}; set it to {'gaussian' if composition.is_stochastic else 'point'}"
    elif composition.decodes != bool(network.decoder_layers):
        wrong = f"network.decoder_layers is {network.decoder_layers}; set it to {'at least 1' if composition.decodes else '0'}"
    if wrong:
        raise ConfigError(f"objective {name}: {wrong}. In a training config, objective={name} does so.")


def _warn_of_idle_settings(config: ObjectiveConfig, composition: Composition) -> None:
    idle = []
    if config.beta is not None and not composition.free_beta:
        idle.append(f"objective.beta={config.beta}")
    if not composition.is_contrastive:
        default = ObjectiveConfig()
        idle += [
            f"objective.{k}={getattr(config, k)}"
            for k in ("negatives", "queue", "tau")
            if getattr(config, k) != getattr(default, k)
        ]
    if idle:
        warnings.warn(f"{', '.join(idle)} has no effect on the objective {config.name!r}.", stacklevel=3)
