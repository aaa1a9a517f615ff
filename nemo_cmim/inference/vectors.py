"""From token ids to posteriors and vectors, in batches.

Shape letters: M distinct molecules, B molecules in a batch, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import CMIMNetwork
from ..models.layers import select
from ..tokenizers import Vocabulary
from ..tokenizers.collate import collate
from ..types import Posterior
from .batching import BatchLimits, length_sorted_batches, pooling_weights, token_budget_slices
from .capabilities import EmbeddingSpec

__all__ = ["Progress", "posteriors", "vectors"]

Progress = Callable[[int, int], None]
Tokens = Sequence[Sequence[int]]


@torch.inference_mode()
def posteriors(
    network: CMIMNetwork, vocabulary: Vocabulary, tokens: Tokens, limits: BatchLimits
) -> Iterator[tuple[NDArray[np.int64], Posterior]]:
    """Yields q(z|x) of batches of M molecules, sorted by length, with the indices of their molecules."""
    for rows in length_sorted_batches([len(row) for row in tokens], limits.encoder_molecules):
        batch = collate([tokens[r] for r in rows], vocabulary).to(_device(network))
        yield rows, network.encode(batch.encoder_BS, batch.is_token_BS)


def vectors(
    network: CMIMNetwork,
    vocabulary: Vocabulary,
    tokens: Tokens,
    spec: EmbeddingSpec,
    limits: BatchLimits,
    *,
    sample: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Vectors of M molecules; see `CMIMModel.embed` for the last three arguments.

    Returns:
        float32 [M + 1, width]; the last row is NaN, for invalid molecules, whose index is -1.
    """
    found = np.empty((len(tokens) + 1, spec.width), dtype=np.float32)
    found[-1] = np.nan
    generator = None if seed is None else torch.Generator().manual_seed(int(seed))
    done = 0
    for rows, posterior in posteriors(network, vocabulary, tokens, limits):
        if sample:
            noise = torch.randn(posterior.mean_BKD.shape, generator=generator)
            posterior = posterior._replace(mean_BKD=posterior.sample(noise.to(_device(network))))
        if spec.kind == "mean":
            found[rows] = posterior.pooled().cpu()
        else:
            for part, pooled in _pooled_states(network, vocabulary, [tokens[r] for r in rows], posterior, spec, limits):
                found[rows[part]] = pooled.float().cpu()
                if progress:
                    progress(done + part.stop, len(tokens))
        done += len(rows)
        if progress:
            progress(done, len(tokens))
    return found


@torch.inference_mode()
def _pooled_states(
    network: CMIMNetwork, vocabulary: Vocabulary, tokens: Tokens, posterior: Posterior, spec: EmbeddingSpec, limits: BatchLimits
) -> Iterator[tuple[slice, Tensor]]:
    """Pooled decoder states [b, width] of slices of a batch whose molecules are sorted by length."""
    memory = network.remember(posterior.mean_BKD, posterior.is_latent_BK)
    lengths = [len(row) for row in tokens]
    for part in token_budget_slices(lengths, limits):
        batch = collate(tokens[part], vocabulary).to(_device(network))
        weight_B1T = torch.from_numpy(pooling_weights(lengths[part], spec.pooling)).to(_device(network))
        pooled = {}
        for number, hidden_BTD in enumerate(network.layer_states(batch.decoder_BT, select(memory, part)), 1):
            if number in spec.layers:
                pooled[number] = (weight_B1T.to(hidden_BTD.dtype) @ hidden_BTD).squeeze(1)
        yield part, torch.cat([pooled[number] for number in spec.layers], 1)


def _device(network: CMIMNetwork) -> torch.device:
    return network.embedding.token.weight.device
