"""The head on a molecule's vector, its first weights, and the loss.

Shape letters: B molecules, I width of the vector, T targets, W outputs: one for each value, or C_t logits for each class target.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import Tensor, nn

__all__ = ["Head", "Outputs", "fit_linear", "loss"]


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
    """A linear map of the standardised vector, plus a hidden layer that adds nothing at first."""

    def __init__(self, inputs: int, outputs: Outputs, hidden: int, dropout: float) -> None:
        super().__init__()
        self.centre_I: Tensor
        self.scale_I: Tensor
        self.register_buffer("centre_I", torch.zeros(inputs))
        self.register_buffer("scale_I", torch.ones(inputs))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, sum(outputs.widths))
        self.hidden: nn.Sequential | None = None
        if hidden:
            last = nn.Linear(hidden, sum(outputs.widths), bias=False)
            nn.init.zeros_(last.weight)
            self.hidden = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), last)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Returns outputs [B, W]."""
        x_BI = self.dropout((x_BI - self.centre_I) / self.scale_I)
        return self.linear(x_BI) if self.hidden is None else self.linear(x_BI) + self.hidden(x_BI)


def fit_linear(head: Head, x_BI: NDArray[np.float32], targets_BT: NDArray[np.float64], outputs: Outputs) -> None:
    """Fits the linear part of a head to the vectors before fine-tuning, so that the first gradients do not spoil the network.

    Args:
        head: It is changed in place.
        x_BI: Vectors of the training molecules.
        targets_BT: Standardised values or class codes; NaN is missing.
        outputs: What the head's outputs are.
    """
    centre, scale = x_BI.mean(0), x_BI.std(0)
    scale[scale == 0] = 1
    x_BI = (x_BI - centre) / scale
    weights, biases = np.zeros(head.linear.weight.shape), np.zeros(head.linear.bias.shape)
    for part, target_B in zip(outputs.slices, targets_BT.T):
        known = ~np.isnan(target_B)
        if known.any():
            fit = _ridge if outputs.task == "regression" else _logistic
            weights[part], biases[part] = fit(x_BI[known], target_B[known], part.stop - part.start)
    with torch.no_grad():
        for tensor, values in (
            (head.centre_I, centre),
            (head.scale_I, scale),
            (head.linear.weight, weights),
            (head.linear.bias, biases),
        ):
            tensor.copy_(torch.from_numpy(values))


def _ridge(x: NDArray[np.float32], y: NDArray[np.float64], width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(y) < 2:
        return np.zeros((width, x.shape[1])), y[:1]
    model = RidgeCV(np.logspace(0, 5, 11)).fit(x, y)
    return model.coef_[None], np.array([model.intercept_])


def _logistic(x: NDArray[np.float32], y: NDArray[np.float64], width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    codes = y.astype(int)
    biases = np.log((np.bincount(codes, minlength=width) + 0.5) / (len(y) + 0.5 * width))
    weights = np.zeros((width, x.shape[1]))
    seen = np.unique(codes)
    if len(seen) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a start for training, not a result
            model = LogisticRegression(C=1e-3, max_iter=200).fit(x, codes)
        two = len(seen) == 2
        weights[seen] = np.concatenate([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
        biases[seen] = np.concatenate([-model.intercept_ / 2, model.intercept_ / 2]) if two else model.intercept_
    return weights, biases


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
