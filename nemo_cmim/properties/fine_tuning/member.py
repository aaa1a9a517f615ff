"""One network with its head, as training changes it and as a file keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import CheckpointError
from ...inference import CMIMModel
from ...inference.batching import Progress, batch_limits
from ...inference.capabilities import EmbeddingSpec, embedding_spec
from ...inference.vectors import vectors
from ...models import CMIMNetwork
from .adapters import merge_adapters
from .head import Head, Outputs
from .recipe import Recipe
from .states import trainable_copy

__all__ = ["Member"]

Tokens = Sequence[Sequence[int]]


class Member(NamedTuple):
    """A trainable copy of a model's network, and a head.

    Attributes:
        network: The network.
        head: The head.
        model: The model that the network is a copy of.
        spec: The vector that the head reads.
    """

    network: CMIMNetwork
    head: Head
    model: CMIMModel
    spec: EmbeddingSpec

    @classmethod
    def new(cls, model: CMIMModel, recipe: Recipe, outputs: Outputs) -> Member:
        """A copy with the model's weights and a random head, on the model's device."""
        spec = embedding_spec(model.config, recipe.kind, None, "mean")
        head = Head(spec.width, outputs, recipe.hidden, recipe.dropout)
        return cls(trainable_copy(model.network, recipe), head.to(model.device), model, spec)

    @classmethod
    def of_weights(cls, model: CMIMModel, recipe: Recipe, outputs: Outputs, weights: Mapping[str, Tensor]) -> Member:
        """A copy with trained weights, ready for prediction: adapters are merged.

        Raises:
            CheckpointError: If the weights are not those of this model and recipe.
        """
        with torch.random.fork_rng(devices=[]):  # the weights of a new head are random
            member = cls.new(model, recipe, outputs)
        member.load(weights)
        merge_adapters(member.network)
        member.train(False)
        return member

    def train(self, mode: bool) -> None:
        """Turns dropout on or off."""
        self.network.train(mode)
        self.head.train(mode)

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that have a gradient, by name."""
        return {name: parameter for name, parameter in self._both().named_parameters() if parameter.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """Copies on the CPU of the trained parameters and of the head's standardisation: all that differs from the model."""
        kept = self.trained() | {f"head.{name}": buffer for name, buffer in self.head.named_buffers()}
        return {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Sets what `weights` returned.

        Raises:
            CheckpointError: If names or shapes differ.
        """
        expected = {name: tensor.shape for name, tensor in self.weights().items()}
        found = {name: tensor.shape for name, tensor in weights.items()}
        if expected != found:
            differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            raise CheckpointError(
                f"The fine-tuned weights do not fit this model: {len(differing)} differ in name or shape, the first is {differing[0]!r}. "
                "Load them with the model and the recipe that they were trained with."
            )
        self._both().load_state_dict(dict(weights), strict=False)

    def vectors(self, tokens: Tokens, batch_size: int | None = None, progress: Progress | None = None) -> NDArray[np.float32]:
        """Vectors of molecules without dropout and gradient, float32 [M, width]."""
        self.train(False)
        limits = batch_limits(self.network.config, batch_size, on_gpu=self.model.device.type == "cuda")
        return vectors(self.network, self.model.tokenizer.vocabulary, tokens, self.spec, limits, progress=progress)[:-1]

    def outputs(self, tokens: Tokens, batch_size: int | None = None, progress: Progress | None = None) -> Tensor:
        """The head's outputs for molecules, float32 [M, W] on the model's device."""
        x = torch.from_numpy(self.vectors(tokens, batch_size, progress)).to(self.model.device)
        with torch.inference_mode():
            return self.head(x)

    def _both(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network, "head": self.head})
