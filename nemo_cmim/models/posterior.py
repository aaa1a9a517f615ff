"""From the encoder's output to q(z|x). B molecules, K latents, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from ..types import Posterior

__all__ = ["DeterministicPosterior", "GaussianPosterior", "build_posterior"]


class GaussianPosterior(nn.Module):
    """Linear heads for mean and log-variance of each latent; the variance is clamped from below (Sec. 3.1)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.mean = nn.Linear(config.hidden_size, config.hidden_size)
        self.log_variance = nn.Linear(config.hidden_size, config.hidden_size)
        self.min_variance = config.min_variance

    def forward(self, encoded_BKD: Tensor) -> Posterior:
        """q(z|x) in fp32, each field [B, K, D]."""
        variance = self.log_variance(encoded_BKD).float().exp().clamp_min(self.min_variance)
        return Posterior(self.mean(encoded_BKD).float(), variance)


class DeterministicPosterior(nn.Module):
    """The latent is the encoder's output, for objectives without a density q(z|x); no parameters, variance 0.

    By its number of parameters, the paper's Perceiver AE has no heads either: 64.6 M, compared with 65.2 M with heads (Sec. D.2).
    """

    def forward(self, encoded_BKD: Tensor) -> Posterior:
        """q(z|x) in fp32, each field [B, K, D]."""
        mean = encoded_BKD.float()
        return Posterior(mean, torch.zeros_like(mean))


def build_posterior(config: NetworkConfig) -> nn.Module:
    """The posterior that `config.posterior` names."""
    return GaussianPosterior(config) if config.is_stochastic else DeterministicPosterior()
