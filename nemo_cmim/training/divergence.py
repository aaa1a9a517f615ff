"""Diverged runs: detects them, and saves the batch for inspection."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from ..mappings import finite
from ..tokenizers import SmilesTokenizer
from ..types import MicroBatch

__all__ = ["LossWatch", "save_batch"]

_SMOOTHING = 0.95  # of the exponential moving average: about the last 20 steps count


class LossWatch:
    """Detects a loss that has risen by more than training had lowered it.

    Losses may be negative and may start at any value, so neither a ratio nor a fixed limit works. A run has diverged if
    smoothed - lowest > max(margin, first - lowest). `smoothed` is the loss averaged over about 20 steps, `first` its first value and
    `lowest` its lowest.

    Args:
        margin: Minimum rise in nats per molecule; None never stops a run.
    """

    def __init__(self, margin: float | None) -> None:
        self.margin = margin
        self.first = self.lowest = self.smoothed = math.nan

    def has_diverged(self, loss: float) -> bool:
        """Adds a finite loss in nats per molecule, and returns whether the run has diverged."""
        if math.isnan(self.first):
            self.first = self.lowest = self.smoothed = loss
        self.smoothed = _SMOOTHING * self.smoothed + (1.0 - _SMOOTHING) * loss
        self.lowest = min(self.lowest, self.smoothed)
        return self.margin is not None and self.smoothed - self.lowest > max(self.margin, self.first - self.lowest)

    def state_dict(self) -> dict[str, float]:
        """The values that change during training."""
        return {"first": self.first, "lowest": self.lowest, "smoothed": self.smoothed}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Loads the values of `state_dict`."""
        self.first, self.lowest, self.smoothed = state["first"], state["lowest"], state["smoothed"]


def save_batch(folder: Path, name: str, batch: MicroBatch, tokenizer: SmilesTokenizer, facts: dict[str, Any]) -> Path:
    """Saves a batch: the tensors of its buckets and the properties to `NAME.pt`, the facts and the decoder's SMILES to `NAME.json`.

    In the JSON file, a number that is not finite is null.

    Returns:
        The JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batch = batch.to("cpu")
    observed = {} if batch.observed is None else batch.observed._asdict()
    torch.save({"buckets": [bucket._asdict() for bucket in batch.buckets], "observed": observed}, folder / f"{name}.pt")
    rows = [row for bucket in batch.buckets for row in zip(bucket.target_BT.tolist(), (bucket.is_target_BT.sum(1) - 1).tolist())]
    smiles = [tokenizer.decode(ids[:length]) for ids, length in rows]  # without <EOS>
    path = folder / f"{name}.json"
    path.write_text(json.dumps(finite({**facts, "smiles": smiles}), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path
