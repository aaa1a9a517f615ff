"""Runs that cannot be saved: how they are recognised, and what they leave for inspection."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from ..tokenizers import SmilesTokenizer
from ..types import TokenBatch

__all__ = ["LossWatch", "save_batch"]

_SMOOTHING = 0.95  # weight of the past: about the last 20 steps count


class LossWatch:
    """Notices a loss that has lost again all that training had gained, and more.

    Losses here may be negative and begin at any height, so neither a ratio nor a fixed level would do. Smoothed over some 20 steps,
    the loss may rise above its lowest value by as much as it had fallen from its first to that one, or by `margin` if that is more.

    Args:
        margin: Nats per molecule; None: never.
    """

    def __init__(self, margin: float | None) -> None:
        self.margin = margin
        self.first = self.lowest = self.smoothed = math.nan

    def has_diverged(self, loss: float) -> bool:
        """Takes note of a finite loss, nats per molecule."""
        if math.isnan(self.first):
            self.first = self.lowest = self.smoothed = loss
        self.smoothed = _SMOOTHING * self.smoothed + (1.0 - _SMOOTHING) * loss
        self.lowest = min(self.lowest, self.smoothed)
        return self.margin is not None and self.smoothed - self.lowest > max(self.margin, self.first - self.lowest)

    def state_dict(self) -> dict[str, float]:
        """All that moves."""
        return {"first": self.first, "lowest": self.lowest, "smoothed": self.smoothed}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes up such a state."""
        self.first, self.lowest, self.smoothed = state["first"], state["lowest"], state["smoothed"]


def save_batch(folder: Path, name: str, batch: TokenBatch, tokenizer: SmilesTokenizer, facts: dict[str, Any]) -> Path:
    """Keeps a batch: `NAME.pt` holds its tensors, `NAME.json` the facts and the molecules as the decoder saw them.

    Returns:
        The JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({field: value.cpu() for field, value in batch._asdict().items()}, folder / f"{name}.pt")
    rows = zip(batch.target_BT.tolist(), (batch.is_target_BT.sum(1) - 1).tolist())  # without <EOS>
    smiles = [tokenizer.decode(ids[:length]) for ids, length in rows]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**facts, "smiles": smiles}, indent=1) + "\n", encoding="utf-8")
    return path
