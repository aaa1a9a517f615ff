"""The network's pass over a micro-batch, bucket by bucket (Alg. 1). Shape letters as in `types`; H = K * D."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..mcore.network import MegatronCMIMNetwork
from ..models.heads import mean_state
from ..types import MicroBatch, Posterior, TokenBatch

__all__ = ["NetworkOutput", "compute"]


class NetworkOutput(NamedTuple):
    """What the network computes for the B molecules of a micro-batch, in the order of the buckets.

    Attributes:
        posterior: q(z|x). Without bottleneck, the mean state of each molecule as its only latent, and variance 0.
        z_BKD: latents drawn from the posterior; its mean if it is deterministic.
        positive_BKD: latents of the second view; None if the objective needs none.
        log_p_x_given_z_B: float32, nats; None without decoder.
        h_BD: mean of the decoder's states; None if no head uses it.
        correct_B: int64, number of targets whose most likely token is right; None without decoder.
    """

    posterior: Posterior
    z_BKD: Tensor
    positive_BKD: Tensor | None
    log_p_x_given_z_B: Tensor | None
    h_BD: Tensor | None
    correct_B: Tensor | None


def compute(
    network: MegatronCMIMNetwork, batch: MicroBatch, *, needs_positive: bool, noise: torch.Generator | None = None
) -> NetworkOutput:
    """Runs the parts that the network has on each bucket, and joins the results.

    The latent noise is drawn for all molecules at once: it does not depend on the number of buckets.

    Args:
        network: The network.
        batch: Tokens.
        needs_positive: Whether to encode the second view.
        noise: Generator of the latent noise; None is torch's default generator.
    """
    config, device = network.network_config, batch.buckets[0].encoder_BS.device
    noises: list[Tensor | None] = [None] * len(batch.buckets)
    if config.is_stochastic:
        shape = (batch.molecules, config.latents, config.hidden_size)
        drawn = torch.randn(shape, device=device) if noise is None else torch.randn(shape, generator=noise).to(device)
        noises = list(drawn.split([len(bucket.encoder_BS) for bucket in batch.buckets]))
    parts = [_compute_bucket(network, bucket, part, needs_positive) for bucket, part in zip(batch.buckets, noises)]
    posterior = Posterior(*(torch.cat(field) for field in list(zip(*(part.posterior for part in parts)))[:2]))
    return NetworkOutput(posterior, *(None if field[0] is None else torch.cat(field) for field in list(zip(*parts))[1:]))  # type: ignore[arg-type]


def _compute_bucket(
    network: MegatronCMIMNetwork, bucket: TokenBatch, noise_BKD: Tensor | None, needs_positive: bool
) -> NetworkOutput:
    config = network.network_config
    posterior = network.encode(bucket.encoder_BS, bucket.is_token_BS)
    z_BKD = posterior.mean_BKD if noise_BKD is None else posterior.sample(noise_BKD)
    positive_BKD = network.encode(*bucket.decoder_view).mean_BKD if needs_positive else None
    log_p_x_B = h_BD = correct_B = None
    if config.decoder_layers:
        states_TBD = network.hidden_states(bucket.decoder_BT, z_BKD, posterior.is_latent_BK)
        if "h" in config.heads.sources:
            h_BD = mean_state(states_TBD.transpose(0, 1), bucket.is_target_BT)
        logits_TBv = network.logits(states_TBD)
        correct_B = ((network.predicted_tokens(logits_TBv) == bucket.target_BT) & bucket.is_target_BT).sum(1)
        log_p_x_B = network.log_p_x_given_z(logits_TBv, bucket.target_BT, bucket.is_target_BT)
    if not config.has_bottleneck:  # the number of latents differs between buckets
        mean_B1D = posterior.pooled().unsqueeze(1)
        posterior, z_BKD = Posterior(mean_B1D, torch.zeros_like(mean_B1D)), mean_B1D
    return NetworkOutput(posterior._replace(is_latent_BK=None), z_BKD, positive_BKD, log_p_x_B, h_BD, correct_B)
