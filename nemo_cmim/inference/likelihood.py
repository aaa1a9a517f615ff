"""log p(x|z) of token sequences. N sequences, B of a batch, T = tokens + 1 targets, K latents, D width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models import CMIMNetwork
from ..tokenizers import Vocabulary
from ..tokenizers.collate import collate
from .batching import BatchLimits, length_sorted_batches, token_budget_slices

__all__ = ["token_log_p"]


@torch.inference_mode()
def token_log_p(
    network: CMIMNetwork, vocabulary: Vocabulary, tokens: Sequence[Sequence[int]], z_NKD: Tensor | None, limits: BatchLimits
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yields log p of each token and of `<EOS>` under teacher forcing, float32 [T], nats, with the index of its sequence.

    Args:
        network: The network.
        vocabulary: Its tokens.
        tokens: N sequences, without special tokens.
        z_NKD: The latents; None: the posterior mean of each sequence itself.
        limits: Sizes of batches.
    """
    device = network.output_bias.device
    for rows in length_sorted_batches([len(one) for one in tokens], limits.encoder_molecules):
        lengths = [len(tokens[row]) for row in rows]
        for part in token_budget_slices(lengths, limits):
            batch = collate([tokens[row] for row in rows[part]], vocabulary).to(device)
            if z_NKD is None:
                posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
                z_BKD, is_latent_BK = posterior.mean_BKD, posterior.is_latent_BK
            else:
                z_BKD, is_latent_BK = z_NKD[torch.from_numpy(rows[part])].to(device), None
            log_p_BTV = network(batch.decoder_BT, z_BKD, is_latent_BK).float().log_softmax(-1)
            log_p_BT = log_p_BTV.gather(2, batch.target_BT[:, :, None])[:, :, 0].cpu().numpy()
            for row, length, log_p_T in zip(rows[part].tolist(), lengths[part], log_p_BT):
                yield row, log_p_T[: length + 1]
