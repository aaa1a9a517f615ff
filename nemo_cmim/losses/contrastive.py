"""The contrastive term log p(k=1|x, z) of cMIM (Eq. 4), in nats, fp32.

For B anchors the B x B similarities are never held at once: rows come in blocks, and backward computes each block again. So memory
is O(block x B), at the price of one more matrix product.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import InvalidShapeError

__all__ = ["log_p_k1"]


def log_p_k1(z_BKD: Tensor, tau: float, *, block: int = 1024) -> Tensor:
    """Eq. 4 with cosine similarity: how well each latent stands out from the others of the batch.

    As App. C.3 has it, log p_k1 = -softplus(sbar_i - s_ii), where s_ij = cos(z_i, z_j) / tau and sbar_i is the log-mean-exp of
    s_ij over the B - 1 negatives j != i. The positive s_ii = 1 / tau is the similarity of a latent to itself.

    Args:
        z_BKD: Latents; the K latents of a molecule form one vector of K * D.
        tau: Temperature. The paper has 1 for molecules and 0.1 for images.
        block: Rows of the similarity matrix that are held at once.

    Returns:
        float32 [B]. With B = 1 there are no negatives: the term is 0, and a warning says so once.

    Raises:
        InvalidShapeError: `z_BKD` has no molecules or a single axis.
    """
    if z_BKD.dim() < 2 or z_BKD.shape[0] == 0:
        raise InvalidShapeError(f"log_p_k1 takes latents [B, K, D] of at least one molecule, found {tuple(z_BKD.shape)}.")
    unit_BH = F.normalize(z_BKD.float().flatten(1), dim=1)
    molecules = len(unit_BH)
    if molecules == 1:
        warnings.warn("A batch of one molecule has no negatives: log p_k1 (Eq. 4) is 0 for it.", stacklevel=2)
        return (unit_BH * 0.0).sum(1)
    if molecules <= block:
        return _block_log_p_k1(unit_BH, unit_BH, 0, tau)
    blocks = [
        checkpoint(_block_log_p_k1, rows, unit_BH, i * block, tau, use_reentrant=False)
        for i, rows in enumerate(unit_BH.split(block))
    ]
    return torch.cat(blocks)


def _block_log_p_k1(anchor_RH: Tensor, unit_BH: Tensor, first: int, tau: float) -> Tensor:
    """Rows `first`, `first + 1`, ... of Eq. 4 against the whole batch: float32 [R]."""
    with torch.autocast(anchor_RH.device.type, enabled=False):
        s_RB = anchor_RH @ unit_BH.T / tau
    own = torch.arange(len(anchor_RH), device=s_RB.device)
    s_own_R = s_RB[own, own + first]
    negatives_RB = s_RB.index_put((own, own + first), s_RB.new_tensor(-math.inf))
    s_bar_R = torch.logsumexp(negatives_RB, dim=1) - math.log(unit_BH.shape[0] - 1)
    return -F.softplus(s_bar_R - s_own_R)
