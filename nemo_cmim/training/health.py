"""Numbers that tell whether the latent space is alive. N molecules, H width of a molecule's vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["effective_rank", "latent_health"]


def effective_rank(x_NH: Tensor) -> float:
    """Exponential of the entropy of the covariance's eigenvalues: 1 if all vary along one line, H if along all axes alike.

    Args:
        x_NH: At least two rows.
    """
    squared = torch.linalg.svdvals(x_NH.double() - x_NH.double().mean(0)).square()
    share = squared / squared.sum().clamp_min(1e-300)
    return float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))


def latent_health(mean_NH: Tensor) -> dict[str, float]:
    """Summary of the vectors (posterior means) of N >= 2 molecules.

    Returns:
        `mean_std`: spread of the means over molecules, averaged over dimensions; near 0 the encoder has collapsed.
        `cosine_mean`, `cosine_std`: cosine similarity of the means of different molecules.
        `effective_rank`: of the means.
    """
    unit_NH = F.normalize(mean_NH, dim=1)
    cosine = (unit_NH @ unit_NH.T)[~torch.eye(len(unit_NH), dtype=torch.bool, device=unit_NH.device)]
    return {
        "mean_std": float(mean_NH.std(0).mean()),
        "cosine_mean": float(cosine.mean()),
        "cosine_std": float(cosine.std()),
        "effective_rank": effective_rank(mean_NH),
    }
