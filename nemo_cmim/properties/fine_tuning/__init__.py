"""Fine-tuning: the network and a head are trained together on measured values."""

from __future__ import annotations

from .recipe import Recipe
from .tuner import FineTuner

__all__ = ["FineTuner", "Recipe"]
