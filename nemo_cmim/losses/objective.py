"""Objectives by name: a training loss is a weighted sum of terms.

Losses are sums over tokens and latent dimensions, and means over molecules. So the balance of the terms does not depend on micro-batch
size, sequence length or number of devices.
"""

from __future__ import annotations

import math
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

DENSITY_TERMS = {"log_q_z_given_x", "log_p_z", "kl"}  # require a variance of q(z|x)
CONTRASTIVE_TERMS = {
    "log_p_k1": True,
    "log_p_k1_sum": False,
    "log_p_positive": False,
}  # whether the term uses the mean over negatives


@dataclass(frozen=True)
class Composition:
    """The weighted sum that is maximised, and what it requires of the network.

    Attributes:
        weights: Weight of each term (field of `LossTerms`).
        full_length: Whether the encoder must have no bottleneck.
        free_beta: Whether `ObjectiveConfig.beta` replaces the weight of -KL; if `beta` is not set, the weight is 1 / (K D).
    """

    weights: Mapping[str, float]
    full_length: bool = False
    free_beta: bool = False

    @property
    def decodes(self) -> bool:
        """True if a decoder is required."""
        return "log_p_x_given_z" in self.weights

    @property
    def is_stochastic(self) -> bool:
        """True if a density q(z|x) is required."""
        return bool(DENSITY_TERMS & self.weights.keys())

    @property
    def is_contrastive(self) -> bool:
        """True if molecules are compared with each other."""
        return bool(CONTRASTIVE_TERMS.keys() & self.weights.keys())

    @property
    def needs_positive(self) -> bool:
        """True if a second view of each molecule is required."""
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
"""Compositions by name (Sec. 2.2, 3, 3.6, D.2)."""


class ObjectiveOutput(NamedTuple):
    """A training loss and its terms.

    Attributes:
        loss: The loss to minimise, float32 scalar, nats, mean over molecules.
        terms: The terms, per molecule.
    """

    loss: Tensor
    terms: LossTerms


class Objective(nn.Module):
    """A training loss. Its state is the queue of latents of earlier batches, if there is one.

    Args:
        composition: Terms, and requirements of the network.
        weights: Weights of the terms, with the final weight of KL.
        tau: Temperature of contrastive terms.
        candidates: Source of the negatives of contrastive terms.
    """

    def __init__(self, composition: Composition, weights: Mapping[str, float], tau: float, candidates: Candidates) -> None:
        super().__init__()
        self.composition, self.weights, self.tau, self.candidates = composition, weights, tau, candidates

    def forward(
        self,
        log_p_x_given_z_B: Tensor | None,
        z_BKD: Tensor,
        posterior: Posterior,
        positive_BKD: Tensor | None = None,
        log_p_y: Mapping[str, Tensor] | None = None,
    ) -> ObjectiveOutput:
        """Computes the loss of a batch.

        Args:
            log_p_x_given_z_B: From the decoder; None if the network has no decoder.
            z_BKD: Latents, drawn from `posterior` or its mean.
            posterior: q(z|x).
            positive_BKD: Latents of the second view, if `composition.needs_positive`.
            log_p_y: Terms of observed properties [B] by name, if there are any; see `losses.property_terms`.
        """
        log_p_y = log_p_y or {}
        terms = {
            name: log_p_y[name] if name in log_p_y else self._term(name, log_p_x_given_z_B, z_BKD, posterior, positive_BKD)
            for name in self.weights
        }
        total_B = torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum(0)
        return ObjectiveOutput(-total_B.mean(), LossTerms(**{f"{name}_B": term for name, term in terms.items()}))

    def _term(
        self, name: str, log_p_x_given_z_B: Tensor | None, z_BKD: Tensor, posterior: Posterior, positive_BKD: Tensor | None
    ) -> Tensor:
        if name == "log_p_x_given_z":
            assert log_p_x_given_z_B is not None, "build_objective checks that the network has a decoder"
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
    """Builds the objective named `config.name`.

    Args:
        config: Name and settings.
        network: Settings of the network to train; None: the defaults.
        group: Data-parallel ranks, for `config.negatives="global"`.

    Raises:
        ConfigError: If the name is unknown, or if the network does not match the objective.
    """
    network = NetworkConfig() if network is None else network
    if config.name not in OBJECTIVES:
        raise ConfigError(f"Unknown objective {config.name!r}. Known: {', '.join(OBJECTIVES)}.")
    composition = OBJECTIVES[config.name]
    _check_network(config.name, composition, network)
    for given, is_possible, part in (("h", composition.decodes, "decoder"), ("z", network.has_bottleneck, "bottleneck")):
        if given in config.properties.sources and not is_possible:
            raise ConfigError(
                f"objective.properties: terms given {given} need a {part}, which objective {config.name} does not have."
            )
    _warn_about_unused_settings(config, composition)
    weights = dict(composition.weights)
    if composition.free_beta:
        weights["kl"] = -(config.beta or 1.0 / (network.latents * network.hidden_size))
    if config.beta is not None and "kl" in config.weights:
        raise ConfigError("objective.beta and objective.weights.kl set the same weight. Leave one of them out.")
    for name, weight in config.weights.items():
        if name not in weights:
            raise ConfigError(
                f"objective.weights.{name}: the objective {config.name} has no such term. Its terms: {', '.join(weights)}."
            )
        if not math.isfinite(weight) or weight * weights[name] < 0:
            sign = "negative" if weights[name] < 0 else "positive"
            raise ConfigError(f"objective.weights.{name} must be a finite number that is 0 or {sign}, found {weight}.")
        weights[name] = weight
    weights |= {name: weight for name, weight in config.properties.weights.items() if weight}
    candidates = Candidates(
        network.latents * network.hidden_size,
        queue=config.queue if composition.is_contrastive else 0,
        group=group if config.negatives == "global" else None,
    )
    return Objective(composition, weights, config.tau, candidates)


def _check_network(name: str, composition: Composition, network: NetworkConfig) -> None:
    """Checks that each part of the network is used, and that each term has what it requires."""
    problem = None
    if composition.full_length == network.has_bottleneck:
        required = "transformer" if composition.full_length else "perceiver or hybrid"
        problem = f"network.encoder is {network.encoder}; set it to {required}"
    elif composition.is_stochastic != network.is_stochastic:
        problem = f"network.posterior is {network.posterior}; set it to {'gaussian' if composition.is_stochastic else 'point'}"
    elif composition.decodes != bool(network.decoder_layers):
        problem = f"network.decoder_layers is {network.decoder_layers}; set it to {'at least 1' if composition.decodes else '0'}"
    if problem:
        raise ConfigError(f"objective {name}: {problem}. In a training config, objective={name} sets it.")


def _warn_about_unused_settings(config: ObjectiveConfig, composition: Composition) -> None:
    unused = []
    if config.beta is not None and not composition.free_beta:
        unused.append(f"objective.beta={config.beta}")
    if not composition.is_contrastive:
        default = ObjectiveConfig()
        unused += [
            f"objective.{k}={getattr(config, k)}"
            for k in ("negatives", "queue", "tau")
            if getattr(config, k) != getattr(default, k)
        ]
    if unused:
        warnings.warn(f"{', '.join(unused)} has no effect on the objective {config.name!r}.", stacklevel=3)
