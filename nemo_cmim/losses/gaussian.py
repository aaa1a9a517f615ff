"""Log densities of Gaussian latents, in nats, fp32. B molecules, K latents, D width."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..types import Posterior

__all__ = ["kl_to_standard_normal", "log_normal", "log_standard_normal"]

_LOG_2PI = math.log(2.0 * math.pi)


def log_normal(z_BKD: Tensor, posterior: Posterior) -> Tensor:
    """log q(z|x) of Eq. 9: a diagonal Gaussian.

    Args:
        z_BKD: Latents at which the density is evaluated.
        posterior: Mean and variance of each latent.

    Returns:
        float32 [B], summed over K and D.
    """
    variance = posterior.variance_BKD.float()
    squared = (z_BKD.float() - posterior.mean_BKD.float()).square() / variance
    return -0.5 * (squared + torch.log(variance) + _LOG_2PI).flatten(1).sum(1)


def log_standard_normal(z_BKD: Tensor) -> Tensor:
    """log P(z) = log N(z; 0, I), the prior in Eq. 9.

    Returns:
        float32 [B], summed over K and D.
    """
    return -0.5 * (z_BKD.float().square() + _LOG_2PI).flatten(1).sum(1)


def kl_to_standard_normal(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)), the rate of a VAE (Sec. D.2), in closed form: 1/2 (mean^2 + variance - 1 - log variance).

    Returns:
        float32 [B], summed over K and D.
    """
    variance = posterior.variance_BKD.float()
    return 0.5 * (posterior.mean_BKD.float().square() + variance - 1.0 - torch.log(variance)).flatten(1).sum(1)
