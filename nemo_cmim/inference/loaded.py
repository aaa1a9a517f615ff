"""A loaded network with its tokenizer: from molecules to posteriors.

Shape letters: N rows, B molecules in a batch, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..arguments import check_integer
from ..config import ModelConfig
from ..models import CMIMNetwork
from ..steps import Steps
from ..tokenizers import SmilesTokenizer
from ..types import Posterior
from .batching import BatchLimits
from .capabilities import description, require_bottleneck
from .device import device_of, device_of_process, dtype_of, multiply_exactly
from .embedding import EmbeddingModel
from .fingerprint import weights_digest
from .inputs import InputOptions, TokenizedMolecules
from .model_file import ModelFile
from .vectors import posteriors

__all__ = ["LoadedModel"]


class LoadedModel(EmbeddingModel):
    """A network with its tokenizer, in evaluation mode; see `CMIMModel` for its attributes."""

    def __init__(
        self, model_file: ModelFile, device: str | torch.device | None = None, name: str | None = None, precision: str = "fp32"
    ) -> None:
        self.name = name
        self.precision = precision
        self.config: ModelConfig = model_file.config
        self.card = model_file.card
        self.property_table = model_file.properties
        self.density = model_file.density
        self.tokenizer = SmilesTokenizer(model_file.vocabulary)
        with torch.device("meta"):
            network = CMIMNetwork(model_file.config.network)
        weights = {name: weight.float() for name, weight in model_file.weights.items()}
        network.load_state_dict(weights, assign=True)
        self.device = device_of(device)
        multiply_exactly(self.device, precision)
        self.network = network.requires_grad_(False).eval().to(self.device, dtype_of(precision))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        multiply_exactly(self.device, self.precision)  # a pickle may be read in another process

    def use_device_of(self, number: int) -> None:
        """Moves the network to the device of one of several processes, counted from 0: with the device "cuda", to one GPU each."""
        self.device = device_of_process(self.device, number)
        self.network.to(self.device)

    def __repr__(self) -> str:
        return description(self.config, self.name, sum(p.numel() for p in self.network.parameters()), self.device, self.precision)

    def encode(
        self,
        smiles: Any,
        *,
        on_invalid: str = "raise",
        canonical: bool = True,
        standardise: Steps = (),
        batch_size: int | None = None,
    ) -> Posterior:
        """Computes q(z|x) of N molecules, fields [N, K, D] on the CPU; see `embed` for arguments. Rows of invalid molecules are NaN.

        Raises:
            InvalidSmilesError: If there are no molecules, or if one cannot be used and `on_invalid="raise"`.
            ConfigError: If the model has no bottleneck, so that the number of latents differs between molecules.
        """
        return self._posterior(smiles, InputOptions(on_invalid, canonical, standardise), batch_size)

    def _posterior(self, smiles: Any, options: InputOptions, batch_size: int | None = None) -> Posterior:
        require_bottleneck(self.config, "encode", 'embed(smiles, kind="mean") gives one vector for each molecule')
        check_integer("batch_size", batch_size, optional=True)
        return self._posterior_of(self._tokenize(smiles, options), batch_size)

    def _posterior_of(self, inputs: TokenizedMolecules, batch_size: int | None = None) -> Posterior:
        network = self.config.network
        mean, variance = torch.full((2, len(inputs.tokens) + 1, network.latents, network.hidden_size), torch.nan)
        for rows, posterior in self._encode(inputs.tokens, self._limits(batch_size)):
            mean[rows], variance[rows] = posterior.mean_BKD.cpu(), posterior.variance_BKD.cpu()
        order = torch.from_numpy(inputs.molecule_of_row)  # an invalid row is -1, the last one, which is NaN
        return Posterior(mean[order], variance[order])

    @functools.cached_property
    def _weights_digest(self) -> str:
        return weights_digest(self.network.state_dict())

    def _encode(self, tokens: Sequence[Sequence[int]], limits: BatchLimits) -> Iterator[tuple[NDArray[np.int64], Posterior]]:
        return posteriors(self.network, self.tokenizer.vocabulary, tokens, limits)
