"""Statistics that show whether the latents have collapsed. N: molecules. H: width of the vector of a molecule."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["effective_rank", "latent_health"]


def effective_rank(x_NH: Tensor) -> float:
    """Exponential of the entropy of the normalised eigenvalues of the covariance.

    It is 1 if all vectors lie on one line, and H if they vary equally along all axes.

    Args:
        x_NH: Vectors, at least two.
    """
    squared = torch.linalg.svdvals(x_NH.double() - x_NH.double().mean(0)).square()
    fraction = squared / squared.sum().clamp_min(1e-300)
    return float(torch.exp(-(fraction * fraction.clamp_min(1e-300).log()).sum()))


def latent_health(mean_NH: Tensor) -> dict[str, float]:
    """Statistics of the posterior means of N >= 2 molecules.

    Returns:
        `mean_std`: standard deviation over molecules, averaged over dimensions. Near 0, the encoder has collapsed.
        `cosine_mean`, `cosine_std`: mean and standard deviation of the cosine similarity of different molecules.
        `effective_rank`: see `effective_rank`.
    """
    unit_NH = F.normalize(mean_NH, dim=1)
    cosine = (unit_NH @ unit_NH.T)[~torch.eye(len(unit_NH), dtype=torch.bool, device=unit_NH.device)]
    return {
        "mean_std": float(mean_NH.std(0).mean()),
        "cosine_mean": float(cosine.mean()),
        "cosine_std": float(cosine.std()),
        "effective_rank": effective_rank(mean_NH),
    }
