"""Low-rank adapters (LoRA): W + 2 U V, where only U and V are trained. R is the rank, I and O the inputs and outputs of a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["LowRank", "add_adapters", "merge_adapters"]

_GAIN = 2.0  # LoRA multiplies U V by alpha / R; the usual alpha is 2 R


class LowRank(nn.Module):
    """Adds a trained matrix of low rank to a frozen weight. At first it adds nothing."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.up_OR = nn.Parameter(torch.zeros(outputs, rank))
        self.down_RI = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))

    def forward(self, weight_OI: Tensor) -> Tensor:
        """Returns the adapted weight [O, I]."""
        return weight_OI + _GAIN * self.up_OR @ self.down_RI


def add_adapters(module: nn.Module, rank: int) -> None:
    """Freezes a module and puts an adapter on the weight of each linear layer in it."""
    module.requires_grad_(False)
    for layer in _linear_layers(module):
        adapter = LowRank(layer.out_features, layer.in_features, rank).to(layer.weight.device)
        parametrize.register_parametrization(layer, "weight", adapter)


def merge_adapters(module: nn.Module) -> None:
    """Replaces each adapted weight by its value, exactly. Layers without adapter stay as they are."""
    for layer in _linear_layers(module):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
