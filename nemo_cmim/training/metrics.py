"""The logged values of a step, in units that are easy to read. Shape letters as in `types`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from ..types import LossTerms, MicroBatch
from .forward import NetworkOutput

__all__ = ["PER_TOKEN", "StepTotals", "readable"]

PER_TOKEN = ("log_p_x_given_z_per_token", "token_accuracy")  # averages over tokens; all others are averages over molecules
_PER_DIMENSION = ("log_q_z_given_x", "log_p_z", "kl")


def readable(terms: LossTerms, batch: MicroBatch, output: NetworkOutput) -> dict[str, Tensor]:
    """The loss terms in nats (per token, per latent dimension or per molecule), and the token accuracy.

    Args:
        terms: Loss terms.
        batch: Tokens.
        output: What the network computed.
    """
    tokens = batch.tokens
    dimensions = output.z_BKD[0].numel()
    named = {}
    for field, value_B in terms._asdict().items():
        name = field.removesuffix("_B")
        if value_B is None:
            continue
        if name == "log_p_x_given_z":
            named[f"{name}_per_token"] = value_B.sum() / tokens
        elif name in _PER_DIMENSION:
            named[f"{name}_per_dim"] = value_B.mean() / dimensions
        else:
            named[name] = value_B.mean()
    if output.correct_B is not None:
        named["token_accuracy"] = output.correct_B.sum() / tokens
    return {name: value.detach() for name, value in named.items()}


class StepTotals:
    """Averages over all micro-batches of a step, on all data-parallel ranks.

    Args:
        group: Data-parallel ranks.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._sums: dict[str, Tensor] = {}

    def add(self, loss: Tensor, metrics: dict[str, Tensor], batch: MicroBatch, flops: int) -> None:
        """Adds one micro-batch.

        Args:
            loss: Loss in nats, mean over the molecules.
            metrics: The values of `readable`.
            batch: Tokens.
            flops: Floating-point operations of forward and backward.
        """
        molecules = torch.tensor(float(batch.molecules), device=loss.device)
        tokens = batch.tokens
        sums = {"molecules": molecules, "tokens": tokens, "flops": torch.tensor(float(flops), device=loss.device)}
        sums["train_loss"] = loss.detach() * molecules
        for name, value in metrics.items():
            sums[f"train/{name}"] = value * (tokens if name in PER_TOKEN else molecules)
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()

    def loss_is_finite(self) -> bool:
        """Whether the loss of all micro-batches of this rank is finite."""
        loss = self._sums.get("train_loss")
        return loss is None or bool(loss.isfinite())

    def reduce(self) -> dict[str, float]:
        """Returns the averages, and the sums `molecules`, `tokens` and `flops`, and starts the next step. A collective call."""
        packed = torch.stack(list(self._sums.values()))
        if torch.distributed.get_world_size(self._group) > 1:
            torch.distributed.all_reduce(packed, group=self._group)
        totals = dict(zip(self._sums, packed.tolist()))
        self._sums = {}
        for name in totals.keys() - {"molecules", "tokens", "flops"}:
            totals[name] /= totals["tokens" if name.removeprefix("train/") in PER_TOKEN else "molecules"]
        return totals
