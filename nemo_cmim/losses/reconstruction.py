"""log p(x|z) of Eq. 9 from token logits, in nats, fp32. B molecules, T targets, V vocabulary."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidShapeError

__all__ = ["log_p_x_given_z", "sum_over_targets"]


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
