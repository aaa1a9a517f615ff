"""The contrastive terms: log p(k=1|x, z) of cMIM (Eq. 4), its ablation cMIM-Sigma, and InfoNCE (Eq. 1). In nats, fp32.

All three are -softplus(sbar_i - s_ii): s_ii is the anchor's similarity to its positive, and sbar_i the log-sum-exp of its similarities
to the negatives, of which Eq. 4 subtracts the logarithm of their number (App. C.3, Eq. 12).

For B anchors and C candidates the similarities are never held at once: rows come in blocks, and backward computes each block again. So
memory is O(block x C), at the price of one more matrix product.

Shape letters: B anchors, C candidates, R rows of a block, K latents, D width, H = K * D.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import InvalidShapeError

__all__ = ["contrast", "info_nce", "log_p_k1", "unit"]


def unit(z_BKD: Tensor) -> Tensor:
    """Latents as unit vectors, float32 [B, H]; the K latents of a molecule form one vector.

    Raises:
        InvalidShapeError: No molecules, or a single axis.
    """
    if z_BKD.dim() < 2 or z_BKD.shape[0] == 0:
        raise InvalidShapeError(
            f"The contrastive term takes latents [B, K, D] of at least one molecule, found {tuple(z_BKD.shape)}."
        )
    return F.normalize(z_BKD.float().flatten(1), dim=1)


def log_p_k1(z_BKD: Tensor, tau: float, *, block: int = 1024) -> Tensor:
    """Eq. 4 with cosine similarity: how well each latent stands out from the others of the batch.

    Args:
        z_BKD: Latents.
        tau: Temperature. The paper has 1 for molecules and 0.1 for images.
        block: Rows of the similarity matrix that are held at once.

    Returns:
        float32 [B]. With B = 1 there are no negatives: the term is 0, and a warning says so once.

    Raises:
        InvalidShapeError: `z_BKD` has no molecules or a single axis.
    """
    unit_BH = unit(z_BKD)
    return contrast(unit_BH, unit_BH, tau, mean_of_negatives=True, block=block)


def info_nce(z_BKD: Tensor, positive_BKD: Tensor, tau: float, *, block: int = 1024) -> Tensor:
    """Eq. 1: classification of each latent's positive among the positives of all; positive_BKD = z_BKD is InfoNCE-X.

    Returns:
        float32 [B], at least 0: minus the log-probability.

    Raises:
        InvalidShapeError: Unequal shapes, no molecules or a single axis.
    """
    if z_BKD.shape != positive_BKD.shape:
        raise InvalidShapeError(f"Latents {tuple(z_BKD.shape)} and positives {tuple(positive_BKD.shape)} must have one shape.")
    return -contrast(unit(z_BKD), unit(positive_BKD), tau, mean_of_negatives=False, block=block)


def contrast(
    anchor_BH: Tensor, candidate_CH: Tensor, tau: float, *, mean_of_negatives: bool, first: int = 0, block: int = 1024
) -> Tensor:
    """Log-probability of each anchor's positive against the other candidates.

    Args:
        anchor_BH: Unit vectors.
        candidate_CH: Unit vectors; anchor i has its positive at `first + i`, and all others are its negatives.
        tau: Temperature.
        mean_of_negatives: Weigh the positive against the mean over negatives (Eq. 4), not their sum (Eq. 1).
        first: Where the candidates of these anchors begin, if others stand before them.
        block: Rows of the similarity matrix that are held at once.

    Returns:
        float32 [B]; 0, and a warning once, where there is no negative.
    """
    if len(candidate_CH) == 1:
        warnings.warn("A batch of one molecule has no negatives: the contrastive term (Eq. 4) is 0 for it.", stacklevel=3)
        return (anchor_BH * 0.0).sum(1)
    shift = math.log(len(candidate_CH) - 1) if mean_of_negatives else 0.0
    if len(anchor_BH) <= block:
        return _rows(anchor_BH, candidate_CH, first, tau, shift)
    blocks = [
        checkpoint(_rows, rows_RH, candidate_CH, first + i * block, tau, shift, use_reentrant=False)
        for i, rows_RH in enumerate(anchor_BH.split(block))
    ]
    return torch.cat(blocks)


def _rows(anchor_RH: Tensor, candidate_CH: Tensor, first: int, tau: float, shift: float) -> Tensor:
    """`contrast` of a block: float32 [R]."""
    with torch.autocast(anchor_RH.device.type, enabled=False):
        s_RC = anchor_RH @ candidate_CH.T / tau
    row = torch.arange(len(anchor_RH), device=s_RC.device)
    s_own_R = s_RC[row, row + first]
    negatives_RC = s_RC.index_put((row, row + first), s_RC.new_tensor(-math.inf))
    s_bar_R = torch.logsumexp(negatives_RC, dim=1) - shift
    return -F.softplus(s_bar_R - s_own_R)
