"""Random numbers of a run. Each draw depends only on the seed, the purpose and an index, not on earlier draws."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Order", "generator"]

_PURPOSES = ("step", "validation", "epoch", "test")


def generator(seed: int, purpose: Literal["step", "validation", "epoch", "test"], index: int = 0) -> torch.Generator:
    """A generator on the CPU, so that all devices get the same numbers.

    Args:
        seed: Seed of the run, at least 0.
        purpose: "step": augmentation and noise of a training step; "validation": noise and second views of validation images; "epoch":
            order of the training images; "test": noise of test images.
        index: Index of the step or epoch.
    """
    sequence = np.random.SeedSequence((seed, _PURPOSES.index(purpose), index))
    return torch.Generator().manual_seed(int(sequence.generate_state(1)[0]))  # torch uses only 32 bits of a seed


class Order:
    """Indices of the images of each batch: epochs in random order, without an incomplete last batch.

    Args:
        images: Number of training images.
        batch_size: B, at most `images`.
        seed: Seed of the run.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self._epoch, self._permutation = -1, torch.empty(0)

    def batch(self, step: int) -> Tensor:
        """int64 [B], the images of a training step."""
        epoch, place = divmod(step, self.images // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = torch.randperm(self.images, generator=generator(self.seed, "epoch", epoch))
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size]
