"""The contrastive terms: log p(k=1|x, z) of cMIM (Eq. 4), its ablation cMIM-Sigma, and InfoNCE (Eq. 1). In nats, fp32.

All three are -softplus(sbar_i - s_ii): s_ii is the anchor's similarity to its positive, and sbar_i the log-sum-exp of its similarities
to the negatives, of which Eq. 4 subtracts the logarithm of their number (App. C.3, Eq. 12).

The similarities of B anchors and C candidates are computed in blocks of rows, forward and backward. Memory is O(block x C), at the cost
of one additional matrix multiplication.

Shape letters: B anchors, C candidates, R rows of a block, K latents, D width, H = K * D.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import InvalidShapeError

__all__ = ["contrast", "info_nce", "log_p_k1", "unit"]


def unit(z_BKD: Tensor) -> Tensor:
    """Latents as unit vectors, float32 [B, H]; the K latents of a molecule form one vector.

    Raises:
        InvalidShapeError: If there are no molecules, or only one axis.
    """
    if z_BKD.dim() < 2 or z_BKD.shape[0] == 0:
        raise InvalidShapeError(
            f"The contrastive term requires latents [B, K, D] of at least one molecule, found {tuple(z_BKD.shape)}."
        )
    return F.normalize(z_BKD.float().flatten(1), dim=1)


def log_p_k1(z_BKD: Tensor, tau: float, *, block: int = 1024) -> Tensor:
    """Eq. 4 with cosine similarity: how well each latent can be distinguished from the others of the batch.

    Args:
        z_BKD: Latents.
        tau: Temperature; 1 for molecules and 0.1 for images in the paper.
        block: Number of rows of the similarity matrix that are computed at once.

    Returns:
        float32 [B]. With B = 1 there are no negatives: the term is 0, and a warning is issued once.

    Raises:
        InvalidShapeError: If `z_BKD` has no molecules or only one axis.
    """
    unit_BH = unit(z_BKD)
    return contrast(unit_BH, unit_BH, tau, mean_of_negatives=True, block=block)


def info_nce(z_BKD: Tensor, positive_BKD: Tensor, tau: float, *, block: int = 1024) -> Tensor:
    """Eq. 1: classification of each latent's positive among all positives; with `positive_BKD = z_BKD`, InfoNCE-X.

    Public as the counterpart of `log_p_k1` for experiments with own latents; training uses `contrast` through `build_objective`.

    Returns:
        float32 [B], at least 0: minus the log-probability.

    Raises:
        InvalidShapeError: If the shapes differ, or if there are no molecules or only one axis.
    """
    if z_BKD.shape != positive_BKD.shape:
        raise InvalidShapeError(f"Latents {tuple(z_BKD.shape)} and positives {tuple(positive_BKD.shape)} must have the same shape.")
    return -contrast(unit(z_BKD), unit(positive_BKD), tau, mean_of_negatives=False, block=block)


def contrast(
    anchor_BH: Tensor, candidate_CH: Tensor, tau: float, *, mean_of_negatives: bool, first: int = 0, block: int = 1024
) -> Tensor:
    """Log-probability of each anchor's positive against the other candidates.

    Args:
        anchor_BH: Unit vectors.
        candidate_CH: Unit vectors; the positive of anchor i is candidate `first + i`, all others are its negatives.
        tau: Temperature.
        mean_of_negatives: Compare the positive with the mean over negatives (Eq. 4) instead of their sum (Eq. 1).
        first: Index of the positive of the first anchor.
        block: Number of rows of the similarity matrix that are computed at once.

    Returns:
        float32 [B]; 0, with a warning that is issued once, if there are no negatives.
    """
    if len(candidate_CH) == 1:
        warnings.warn("A batch of one molecule has no negatives: its contrastive term (Eq. 4) is 0.", stacklevel=3)
        return (anchor_BH * 0.0).sum(1)
    own_BH = candidate_CH[first : first + len(anchor_BH)]
    s_own_B = (anchor_BH * own_BH).sum(1) / tau
    s_bar_B = _LogSumExpOfNegatives.apply(anchor_BH, candidate_CH, tau, first, block)
    if mean_of_negatives:
        s_bar_B = s_bar_B - math.log(len(candidate_CH) - 1)
    return -F.softplus(s_bar_B - s_own_B)


class _LogSumExpOfNegatives(torch.autograd.Function):
    """Log-sum-exp of each anchor's similarities to its negatives, float32 [B].

    The gradient is the softmax pi_ij over negatives (App. C.3); backward recomputes the similarities.
    """

    @staticmethod
    def forward(ctx: Any, anchor_BH: Tensor, candidate_CH: Tensor, tau: float, first: int, block: int) -> Tensor:
        ctx.tau, ctx.first, ctx.block = tau, first, block
        blocks = _blocks(anchor_BH, candidate_CH, tau, first, block)
        s_bar_B = torch.cat([torch.logsumexp(s_RC, dim=1) for _, s_RC in blocks])
        ctx.save_for_backward(anchor_BH, candidate_CH, s_bar_B)
        return s_bar_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_B: Tensor) -> tuple[Tensor | None, ...]:
        anchor_BH, candidate_CH, s_bar_B = ctx.saved_tensors
        to_anchor_BH, to_candidate_CH = torch.empty_like(anchor_BH), torch.zeros_like(candidate_CH)
        for rows, s_RC in _blocks(anchor_BH, candidate_CH, ctx.tau, ctx.first, ctx.block):
            pi_RC = s_RC.sub_(s_bar_B[rows, None]).exp_().mul_(gradient_B[rows, None] / ctx.tau)
            to_anchor_BH[rows] = pi_RC @ candidate_CH
            to_candidate_CH.addmm_(pi_RC.T, anchor_BH[rows])
        return to_anchor_BH, to_candidate_CH, None, None, None


def _blocks(anchor_BH: Tensor, candidate_CH: Tensor, tau: float, first: int, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of rows and their similarities [R, C], with -inf for the positive of each row."""
    for start in range(0, len(anchor_BH), block):
        rows = slice(start, min(start + block, len(anchor_BH)))
        with torch.autocast(anchor_BH.device.type, enabled=False):
            s_RC = anchor_BH[rows] @ candidate_CH.T
        s_RC.div_(tau).diagonal(first + start).fill_(-math.inf)
        yield rows, s_RC
