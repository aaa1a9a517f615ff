"""Greedy decoding with a key/value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidShapeError
from .layers import select
from .network import CMIMNetwork

__all__ = ["greedy_decode"]


@torch.inference_mode()
def greedy_decode(
    network: CMIMNetwork,
    z_BKD: Tensor,
    is_latent_BK: Tensor | None = None,
    *,
    bos_id: int,
    eos_id: int,
    is_allowed_V: Tensor,
    max_tokens: int | None = None,
) -> Tensor:
    """Decodes greedily: appends the most likely token until `<EOS>`.

    Molecules that have ended are removed from the batch. The network should be in eval mode.

    Args:
        network: The decoder.
        z_BKD: Latents.
        is_latent_BK: bool, True at real latents; None: all.
        bos_id: Id that starts a sequence.
        eos_id: Id that ends it.
        is_allowed_V: bool [vocabulary_size], True for ids that may be written; `<EOS>` is always allowed.
        max_tokens: Maximum number of tokens to write; None: limited only by the positions of the model.

    Returns:
        int64 [B, T]: the tokens, then `eos_id` to the end of each row. A row without `eos_id` was truncated at `max_tokens`.

    Raises:
        InvalidShapeError: If `z_BKD` does not match the network.
    """
    config = network.config
    latents = config.latents if config.has_bottleneck else "any number"
    if z_BKD.dim() != 3 or z_BKD.shape[2] != config.hidden_size or (config.has_bottleneck and z_BKD.shape[1] != latents):
        raise InvalidShapeError(f"Latents must have the shape [B, {latents}, {config.hidden_size}], found {tuple(z_BKD.shape)}.")
    limit = config.max_tokens if max_tokens is None else min(max_tokens, config.max_tokens)
    device, molecules = z_BKD.device, len(z_BKD)
    forbidden_V = torch.ones(config.padded_vocabulary_size, dtype=torch.bool, device=device)
    forbidden_V[: len(is_allowed_V)] = ~is_allowed_V.to(device)
    forbidden_V[eos_id] = False

    written_BT = torch.full((molecules, limit), eos_id, dtype=torch.long, device=device)
    alive_A = torch.arange(molecules, device=device)
    ids_A = torch.full((molecules,), bos_id, dtype=torch.long, device=device)
    memory, caches = network.remember(z_BKD, is_latent_BK), _empty_caches(network, molecules)
    for position in range(limit):
        if not len(alive_A):
            return written_BT[:, :position]
        caches = _grown(caches, position)
        logits_AV = network.step(ids_A, memory, caches, position)
        ids_A = logits_AV.masked_fill(forbidden_V, -torch.inf).argmax(-1)
        written_BT[alive_A, position] = ids_A
        is_unfinished_A = ids_A != eos_id
        if not is_unfinished_A.all():
            keep = is_unfinished_A.nonzero()[:, 0]
            alive_A, ids_A = alive_A[keep], ids_A[keep]
            memory = select(memory, keep)
            caches = [(key[keep], value[keep]) for key, value in caches]
    return written_BT


_GROWTH = 32  # positions


def _empty_caches(network: CMIMNetwork, molecules: int) -> list[tuple[Tensor, Tensor]]:
    config = network.config
    shape = (molecules, config.attention_heads, _GROWTH, config.head_size)
    return [(network.output_bias.new_zeros(shape), network.output_bias.new_zeros(shape)) for _ in network.decoder]


def _grown(caches: list[tuple[Tensor, Tensor]], position: int) -> list[tuple[Tensor, Tensor]]:
    """The same caches, extended by `_GROWTH` positions if there is no space for `position`."""
    if position < caches[0][0].shape[2]:
        return caches
    room = (0, 0, 0, _GROWTH)
    return [(torch.nn.functional.pad(key, room), torch.nn.functional.pad(value, room)) for key, value in caches]
