"""log p(x|z) of Eq. 9, in nats, fp32: categorical (tokens) and Bernoulli. B molecules, T targets, V vocabulary, F binary values."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidShapeError

__all__ = ["log_bernoulli", "log_p_x_given_z", "sum_over_targets"]


def log_p_x_given_z(logits_BTV: Tensor, target_BT: Tensor, is_target_BT: Tensor) -> Tensor:
    """Log-likelihood of each molecule's tokens under the decoder.

    Args:
        logits_BTV: Decoder output; column t predicts target t.
        target_BT: int64 token ids.
        is_target_BT: bool, True where a target counts.

    Returns:
        float32 [B], summed over a molecule's targets.

    Raises:
        InvalidShapeError: If logits, targets and mask differ in molecules or positions.
    """
    if logits_BTV.shape[:2] != target_BT.shape or target_BT.shape != is_target_BT.shape:
        raise InvalidShapeError(
            f"Logits {tuple(logits_BTV.shape)}, targets {tuple(target_BT.shape)} and mask {tuple(is_target_BT.shape)} must have the same "
            "numbers of molecules and positions."
        )
    nats_BT = F.cross_entropy(logits_BTV.float().flatten(0, 1), target_BT.flatten(), reduction="none").view_as(target_BT)
    return sum_over_targets(-nats_BT, is_target_BT)


def sum_over_targets(log_p_BT: Tensor, is_target_BT: Tensor) -> Tensor:
    """Sums the log-likelihoods of real targets; values at padding, also NaN, are ignored.

    Returns:
        float32 [B].
    """
    return log_p_BT.float().masked_fill(~is_target_BT, 0.0).sum(1)


def log_bernoulli(logits_BF: Tensor, x_BF: Tensor) -> Tensor:
    """Log-probability of independent binary values, log p(x|z) of the paper's Bernoulli decoder (Sec. D.1).

    Args:
        logits_BF: Logits of a 1.
        x_BF: Values in [0, 1]. A value between 0 and 1 counts as the probability of a 1: the result is then the expected log-probability,
            minus the cross-entropy, whose maximum over the logits is below 0.

    Returns:
        float32 [B], summed over F.

    Raises:
        InvalidShapeError: If the shapes differ.
    """
    if logits_BF.shape != x_BF.shape:
        raise InvalidShapeError(f"Logits {tuple(logits_BF.shape)} and values {tuple(x_BF.shape)} must have the same shape.")
    return -F.binary_cross_entropy_with_logits(logits_BF.float(), x_BF.float(), reduction="none").flatten(1).sum(1)
