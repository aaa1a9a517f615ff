"""From token ids to posteriors and vectors, in batches.

Shape letters: M distinct molecules, B molecules in a batch, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..models import CMIMNetwork
from ..models.layers import Memory, select
from ..tokenizers import Vocabulary
from ..tokenizers.collate import collate
from ..types import Posterior, TokenBatch
from .batching import BatchLimits, Progress, length_sorted_batches, pooling_weights, token_budget_slices
from .capabilities import EmbeddingSpec

__all__ = ["pooled_layers", "posteriors", "vectors"]

Tokens = Sequence[Sequence[int]]


def posteriors(
    network: CMIMNetwork, vocabulary: Vocabulary, tokens: Tokens, limits: BatchLimits
) -> Iterator[tuple[NDArray[np.int64], Posterior]]:
    """Yields q(z|x) of batches of M molecules, sorted by length, with the indices of their molecules."""
    for rows in length_sorted_batches([len(row) for row in tokens], limits.encoder_molecules):
        yield rows, _encode(network, vocabulary, [tokens[r] for r in rows])


@torch.inference_mode()
def _encode(network: CMIMNetwork, vocabulary: Vocabulary, tokens: Tokens) -> Posterior:
    batch = _batch(network, vocabulary, tokens)
    return network.encode(batch.encoder_BS, batch.is_token_BS)


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

    If the memory of a GPU is exhausted, the batch and all following ones are halved.

    Returns:
        float32 [M + 1, width]; the last row is NaN, for invalid molecules, whose index is -1.

    Raises:
        ConfigError: If the memory does not suffice for one molecule.
    """
    found = np.empty((len(tokens) + 1, spec.width), dtype=np.float32)
    found[-1] = np.nan
    generator = None if seed is None else torch.Generator().manual_seed(int(seed))
    pending = [*length_sorted_batches([len(row) for row in tokens], limits.encoder_molecules)][::-1]
    done = 0
    while pending:
        rows = pending.pop()
        before = None if generator is None else generator.get_state()
        of_rows = [tokens[r] for r in rows]
        try:
            posterior = _encode(network, vocabulary, of_rows)
            if sample:
                noise = torch.randn(posterior.mean_BKD.shape, generator=generator)
                posterior = posterior._replace(mean_BKD=posterior.sample(noise.to(_device(network))))
            if spec.kind == "mean":
                found[rows] = posterior.pooled().cpu()
            else:
                for part, pooled in _pooled_states(network, vocabulary, of_rows, posterior, spec, limits):
                    found[rows[part]] = pooled.float().cpu()
                    if progress:
                        progress(done + part.stop, len(tokens))
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise ConfigError(
                    f"The memory of {_device(network)} does not suffice for a molecule of {len(of_rows[0])} tokens. Free memory of the "
                    'GPU, or pass device="cpu".'
                ) from error
            limits = limits.halved()
            pending = [half for batch in [*pending, rows] for half in np.array_split(batch, 2)[::-1] if len(half)]
            if generator is not None and before is not None:
                generator.set_state(before)  # the halves draw the noise of the batch
            continue
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
        batch = _batch(network, vocabulary, tokens[part])
        weight_B1T = torch.from_numpy(pooling_weights(lengths[part], spec.pooling)).to(_device(network))
        yield part, pooled_layers(network, batch.decoder_BT, select(memory, part), weight_B1T, spec.layers)


def pooled_layers(
    network: CMIMNetwork, decoder_BT: Tensor, memory: list[Memory], weight_B1T: Tensor, layers: Sequence[int]
) -> Tensor:
    """Pooled decoder states of B molecules, with gradient if it is enabled.

    Args:
        network: A network with a decoder.
        decoder_BT: `<BOS>` and the tokens.
        memory: What `CMIMNetwork.remember` computed from the latents.
        weight_B1T: Weight of each position, see `pooling_weights`.
        layers: Numbers of the layers, from 1.

    Returns:
        float32 [B, len(layers) * D].
    """
    pooled = {}
    for number, hidden_BTD in enumerate(network.layer_states(decoder_BT, memory), 1):
        if number in layers:
            pooled[number] = (weight_B1T @ hidden_BTD.float()).squeeze(1)
    return torch.cat([pooled[number] for number in layers], 1)


def _batch(network: CMIMNetwork, vocabulary: Vocabulary, tokens: Tokens) -> TokenBatch:
    """The batch on the device of the network; to a GPU it is copied from pinned memory, which does not block."""
    batch, device = collate(tokens, vocabulary), _device(network)
    if device.type == "cuda":
        batch = TokenBatch(*(tensor.pin_memory() for tensor in batch))
    return batch.to(device)


def _device(network: CMIMNetwork) -> torch.device:
    return network.embedding.token.weight.device
