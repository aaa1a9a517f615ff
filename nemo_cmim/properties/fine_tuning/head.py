"""The head on a molecule's vector, and the loss.

Shape letters: B molecules, I width of the vector, T targets, W outputs: one for each value, or C_t logits for each class target.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Head", "Outputs", "balanced_weights", "loss"]


class Outputs(NamedTuple):
    """What the W outputs of a head are.

    Attributes:
        task: "regression" or "classification".
        widths: Outputs of each target: 1, or the number of classes.
    """

    task: str
    widths: tuple[int, ...]

    @property
    def slices(self) -> list[slice]:
        """The outputs of each target."""
        stops = np.cumsum(self.widths).tolist()
        return [slice(stop - width, stop) for stop, width in zip(stops, self.widths)]


class Head(nn.Module):
    """A linear map of the standardised vector, plus one with a hidden layer. At first its outputs are 0."""

    def __init__(self, inputs: int, outputs: Outputs, hidden: int, dropout: float) -> None:
        super().__init__()
        self.centre_I: Tensor
        self.scale_I: Tensor
        self.register_buffer("centre_I", torch.zeros(inputs))
        self.register_buffer("scale_I", torch.ones(inputs))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, sum(outputs.widths))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.hidden: nn.Sequential | None = None
        if hidden:
            last = nn.Linear(hidden, sum(outputs.widths), bias=False)
            nn.init.zeros_(last.weight)
            self.hidden = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), last)

    def standardise(self, x_MI: NDArray[np.float32]) -> None:
        """Learns mean and standard deviation of the vectors."""
        scale = x_MI.std(0)
        with torch.no_grad():
            self.centre_I.copy_(torch.from_numpy(x_MI.mean(0)))
            self.scale_I.copy_(torch.from_numpy(np.where(scale == 0, 1, scale)))

    def forward(self, x_BI: Tensor) -> Tensor:
        """Returns outputs [B, W]."""
        x_BI = self.dropout((x_BI - self.centre_I) / self.scale_I)
        return self.linear(x_BI) if self.hidden is None else self.linear(x_BI) + self.hidden(x_BI)


def loss(outputs_BW: Tensor, targets_BT: Tensor, outputs: Outputs, class_weights_W: Tensor | None = None) -> Tensor:
    """Mean over the known targets of the squared error or of the cross entropy in nats. Missing targets have no gradient.

    Args:
        outputs_BW: Outputs of the head.
        targets_BT: Standardised values or class codes; NaN is missing.
        outputs: What the outputs are.
        class_weights_W: Weight of each class in the mean; None: 1.

    Returns:
        A number; 0 if no target is known.
    """
    total, weight = outputs_BW.sum() * 0, 0.0
    for part, target_B in zip(outputs.slices, targets_BT.T):
        known = ~target_B.isnan()
        found, truth = outputs_BW[known, part], target_B[known]
        if outputs.task == "regression":
            total = total + F.mse_loss(found[:, 0], truth, reduction="sum")
            weight += len(truth)
        else:
            weights = torch.ones(found.shape[1], device=found.device) if class_weights_W is None else class_weights_W[part]
            total = total + F.cross_entropy(found, truth.long(), weights, reduction="sum")
            weight += float(weights[truth.long()].sum())
    return total / max(weight, 1e-12)


def balanced_weights(targets_NT: NDArray[np.float64], outputs: Outputs) -> NDArray[np.float64]:
    """Weight of each class, [W]: inversely proportional to its rows, 1 on average over the rows of a target; 1 for a class without rows.

    Args:
        targets_NT: Class codes; NaN is missing.
        outputs: What the outputs are.
    """
    weights = []
    for width, target_N in zip(outputs.widths, targets_NT.T):
        counts = np.bincount(target_N[~np.isnan(target_N)].astype(int), minlength=width)
        shares = counts * np.count_nonzero(counts)
        weights.append(np.where(counts, counts.sum() / np.maximum(1, shares), 1.0))
    return np.concatenate(weights)
