"""Decodes latents to token ids: greedily, by drawing, or by beam search.

Shape letters: B molecules, A molecules that are not finished, W sequences of a beam, N sequences that are returned for a molecule, R rows
of a batch, T positions, V tokens of the padded vocabulary, K latents, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..models import CMIMNetwork
from ..models.layers import select
from ..tokenizers import Vocabulary
from .beam import beam_search
from .grammar import SmilesGrammar
from .rows import decode_rows
from .settings import DecodingSettings
from .stepper import Stepper, check_latents

__all__ = ["Decoded", "decode"]

_GREEDY = DecodingSettings()


class Decoded(NamedTuple):
    """N sequences for each of B molecules, the most likely first with a beam, in the order of the draws with a temperature.

    Attributes:
        ids_BNT: int64, the tokens, then `<EOS>` to the end. A row without `<EOS>` was truncated.
        log_p_BN: log p(x|z) of each sequence, `<EOS>` included, in nats, float32; -inf if a beam found fewer than N sequences. Neither
            the temperature nor any restriction of the tokens changes it.
    """

    ids_BNT: Tensor
    log_p_BN: Tensor


@torch.inference_mode()
def decode(
    network: CMIMNetwork,
    vocabulary: Vocabulary,
    z_BKD: Tensor,
    is_latent_BK: Tensor | None = None,
    settings: DecodingSettings = _GREEDY,
    numbers: Sequence[int] | None = None,
) -> Decoded:
    """Decodes latents. Only chemical tokens are written. Sequences that have ended leave the batch.

    Args:
        network: The decoder, in eval mode.
        vocabulary: Its tokens.
        z_BKD: Latents.
        is_latent_BK: bool, True at real latents; None: all.
        settings: How tokens are chosen.
        numbers: B numbers from 0 to 2**64 - 1; None: 0 to B - 1. Draws depend on the seed and on the number of the molecule, not on its
            batch.

    Raises:
        InvalidShapeError: If `z_BKD` does not match the network.
        ConfigError: If the network has no decoder.
    """
    check_latents(network, z_BKD)
    size = network.config.padded_vocabulary_size
    limit = min(settings.max_tokens or network.config.max_tokens, network.config.max_tokens)
    is_allowed_V = torch.zeros(size, dtype=torch.bool)
    is_allowed_V[: len(vocabulary)] = torch.tensor(vocabulary.is_chemical)
    is_allowed_V[vocabulary.eos_id] = True
    grammar = SmilesGrammar(vocabulary, size, z_BKD.device) if settings.grammar else None
    copies = settings.beam_size if settings.temperature is None else settings.n_best
    rows = torch.arange(len(z_BKD), device=z_BKD.device).repeat_interleave(copies)
    memory = select(network.remember(z_BKD, is_latent_BK), rows)
    stepper = Stepper(network, memory, len(rows), is_allowed_V.to(z_BKD.device), grammar)
    if settings.beam_size > 1:
        found = beam_search(stepper, vocabulary, settings.beam_size, settings.n_best, limit)
    else:
        uniform_RT = None
        if settings.temperature is not None:
            uniform_RT = _draws(settings.seeded(), range(len(z_BKD)) if numbers is None else numbers, limit).to(z_BKD.device)
        found = decode_rows(stepper, vocabulary, len(rows), limit, settings, uniform_RT)
    ids, log_p = found
    shape = (len(z_BKD), settings.n_best)
    return Decoded(ids.view(*shape, ids.shape[-1]), log_p.view(shape))


def _draws(settings: DecodingSettings, numbers: Sequence[int], positions: int) -> Tensor:
    """Uniform random numbers in [0, 1), float32 [B * N, T]."""
    shape, seed = (settings.n_best, positions), settings.seed or 0
    rows = [
        np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64))).random(shape, np.float32)
        for number in numbers
    ]
    return torch.from_numpy(np.concatenate(rows) if rows else np.empty((0, positions), np.float32))
