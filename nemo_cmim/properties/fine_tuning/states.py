"""A copy of a network whose parameters can be trained, and the vectors of molecules with their gradient.

Shape letters: B molecules, T decoder positions, K latents, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...inference.batching import pooling_weights
from ...inference.capabilities import EmbeddingSpec
from ...inference.vectors import pooled_layers
from ...models import CMIMNetwork
from ...models.perceiver import PerceiverEncoder
from ...models.posterior import GaussianPosterior
from ...models.transformer import HybridEncoder, TransformerEncoder
from ...tokenizers import Vocabulary
from ...tokenizers.collate import collate
from .adapters import add_adapters
from .recipe import Recipe

__all__ = ["is_of_decoder", "states", "trainable_copy"]

_DECODER = ("decoder.", "decoder_norm.")


def trainable_copy(network: CMIMNetwork, recipe: Recipe) -> CMIMNetwork:
    """A copy in which only the parameters that the recipe names have a gradient; dropout is the recipe's.

    Raises:
        ConfigError: If the network has fewer layers than the recipe names.
    """
    with torch.device("meta"):
        copy = CMIMNetwork(dataclasses.replace(network.config, dropout=recipe.dropout))
    copy.load_state_dict({name: weight.detach().clone() for name, weight in network.state_dict().items()}, assign=True)
    copy.requires_grad_(False)
    for part in _parts_used(copy, recipe.kind):
        part.requires_grad_(True)
    if recipe.scope.startswith("last"):
        copy.requires_grad_(False)
        for part in _last(copy, recipe):
            part.requires_grad_(True)
    elif recipe.scope.startswith("lora"):
        copy.requires_grad_(False)
        for part in _parts_used(copy, recipe.kind):
            add_adapters(part, recipe.number)
    return copy


def _parts_used(network: CMIMNetwork, kind: str) -> list[nn.Module]:
    """The modules that the vector depends on."""
    encoder = [network.embedding, network.encoder, _posterior_mean(network)]
    return encoder if kind == "mean" else [*encoder, network.decoder, network.decoder_norm]


def _posterior_mean(network: CMIMNetwork) -> nn.Module:
    return network.posterior.mean if isinstance(network.posterior, GaussianPosterior) else network.posterior


def _last(network: CMIMNetwork, recipe: Recipe) -> Iterator[nn.Module]:
    """The last layers of the decoder, or of the encoder, and what follows them."""
    encoder = network.encoder
    what: str
    stacks: list[nn.ModuleList]
    ends: list[nn.Module]
    if recipe.kind == "informative":
        what, stacks, ends = "decoder", [network.decoder], [network.decoder_norm]
    elif isinstance(encoder, PerceiverEncoder):
        what, stacks, ends = "encoder", [encoder.read, encoder.think], [encoder.norm, _posterior_mean(network)]
    else:
        assert isinstance(encoder, (HybridEncoder, TransformerEncoder))
        end: nn.Module = encoder.pool if isinstance(encoder, HybridEncoder) else encoder.norm
        what, stacks, ends = "encoder", [encoder.layers], [end, _posterior_mean(network)]
    if recipe.number > len(stacks[0]):
        raise ConfigError(
            f"scope={recipe.scope!r} trains {recipe.number} layers of the {what}, but this model has {len(stacks[0])}. Use at most "
            f'"last:{len(stacks[0])}", or "all".'
        )
    for stack in stacks:
        yield from stack[-recipe.number :]
    yield from ends


def is_of_decoder(name: str) -> bool:
    """Whether a parameter of this name belongs to the decoder."""
    return name.startswith(_DECODER)


def states(network: CMIMNetwork, vocabulary: Vocabulary, tokens: Sequence[Sequence[int]], spec: EmbeddingSpec) -> Tensor:
    """Vectors of B molecules as `CMIMModel.embed` computes them, with gradient.

    Args:
        network: The network, on any device.
        vocabulary: Vocabulary of the ids.
        tokens: Ids of each molecule, without special tokens.
        spec: Which vector.

    Returns:
        float32 [B, width].
    """
    batch = collate(tokens, vocabulary).to(network.embedding.token.weight.device)
    posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
    if spec.kind == "mean":
        return posterior.pooled()
    weight_B1T = torch.from_numpy(pooling_weights([len(row) for row in tokens], spec.pooling)).to(batch.decoder_BT.device)
    return pooled_layers(
        network, batch.decoder_BT, network.remember(posterior.mean_BKD, posterior.is_latent_BK), weight_B1T, spec.layers
    )
