"""The encoder and decoder of Sec. D.1, from the package's Perceiver.

Shape letters: B images, P = 784 pixels, K steps of the latent array (400 in the paper), D = 16 width of a step, Z = 64 latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nemo_cmim.config import NetworkConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses import Composition, log_bernoulli
from nemo_cmim.models import Perceiver, build_posterior
from nemo_cmim.types import Posterior

__all__ = ["PIXELS", "ImageNetwork", "NetworkSizes", "latent_config"]

PIXELS = 28 * 28
_QUERY_SCALE = 8.0


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Sizes of Sec. D.1. It does not tell the number of heads and the width of the feed-forward layers: one head, 4 times `hidden`.

    Attributes:
        latents: K, steps of the latent array.
        hidden: D, width of a step.
        layers: Self-attention layers after the cross-attention.
        heads: Attention heads.
        dimensions: Z, latent dimensions.
    """

    latents: int = 400
    hidden: int = 16
    layers: int = 4
    heads: int = 1
    dimensions: int = 64

    def __post_init__(self) -> None:
        for name in ("latents", "hidden", "layers", "heads", "dimensions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}.")


def latent_config(sizes: NetworkSizes, objective: Composition) -> NetworkConfig:
    """What `build_objective` and `build_posterior` need to know of the network: one latent of Z dimensions, its kind, and the decoder."""
    return NetworkConfig(
        hidden_size=sizes.dimensions,
        attention_heads=1,
        latents=1,
        posterior="gaussian" if objective.is_stochastic else "point",
        decoder_layers=int(objective.decodes),
    )


class _Stage(nn.Module):
    """A sequence of numbers to a latent array: up-projection, Perceiver, projection of each step to one number, layer norm.

    Each position of the input has its own weight and bias of the up-projection (the position), since a Perceiver does not see the order.
    """

    def __init__(self, length: int, sizes: NetworkSizes) -> None:
        super().__init__()
        config = NetworkConfig(
            hidden_size=sizes.hidden,
            latents=sizes.latents,
            attention_heads=sizes.heads,
            ffn_size=4 * sizes.hidden,
            dropout=0.0,
        )
        self.weight_SD = nn.Parameter(torch.randn(length, sizes.hidden))
        self.bias_SD = nn.Parameter(torch.randn(length, sizes.hidden))
        self.perceiver = Perceiver(config, sizes.layers)
        with torch.no_grad():
            self.perceiver.cross_attention.q.weight.mul_(_QUERY_SCALE)
        self.to_number = nn.Linear(sizes.hidden, 1)
        self.norm = nn.LayerNorm(sizes.latents)

    def forward(self, x_BS: Tensor) -> Tensor:
        """Returns [B, K]."""
        up_BSD = torch.addcmul(self.bias_SD, x_BS.unsqueeze(-1), self.weight_SD)
        return self.norm(self.to_number(self.perceiver(up_BSD)).squeeze(-1))


class ImageNetwork(nn.Module):
    """q(z|x) and, if the objective decodes, the Bernoulli p(x|z) of its mirror image (Sec. D.1).

    784 pixels -> (784, 16) -> Perceiver to (K, 16) -> K numbers, layer norm -> 64 -> mean and variance; 64 -> (64, 16) -> Perceiver to
    (K, 16) -> K numbers, layer norm: h -> 784 logits.

    Differs from the paper: "a linear layer to (784, 16)" is read as a weight and a bias for each pixel and width (25,088 parameters). One
    map for all pixels would hide where a pixel is, and a dense map of all pixels to all widths would have 9.8 million parameters, more
    than all the rest. The first weights of the queries that read the input are 8 times torch's, so that each latent reads some pixels
    and not the mean of all (after 600 steps of AE at B = 20 on MNIST with K = 49, KNN accuracy was 0.85 with it and below 0.6 without it).
    Objectives without a density q(z|x) (AE, InfoNCE) take the encoder's 64 outputs as latent, as the package does.

    Args:
        sizes: Sizes.
        objective: Tells whether there is a variance and a decoder.
    """

    def __init__(self, sizes: NetworkSizes, objective: Composition) -> None:
        super().__init__()
        self.encoder = _Stage(PIXELS, sizes)
        self.to_latent = nn.Linear(sizes.latents, sizes.dimensions)
        self.posterior = build_posterior(latent_config(sizes, objective))
        self.decoder = _Stage(sizes.dimensions, sizes) if objective.decodes else None
        self.to_logits = nn.Linear(sizes.latents, PIXELS) if objective.decodes else None

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters())

    def encode(self, x_BP: Tensor) -> Posterior:
        """q(z|x) of pixels in [0, 1]; each field float32 [B, 1, Z]."""
        posterior: Posterior = self.posterior(self.to_latent(self.encoder(x_BP)).unsqueeze(1))
        return posterior

    def hidden(self, z_B1Z: Tensor) -> Tensor:
        """h, what the logits are computed from: the informative embedding of images (Sec. 2.3), [B, K].

        Raises:
            ConfigError: If the network has no decoder.
        """
        if self.decoder is None:
            raise ConfigError("This objective trains no decoder (InfoNCE), so there are no informative embeddings.")
        h_BK: Tensor = self.decoder(z_B1Z.squeeze(1))
        return h_BK

    def log_p_x_given_z(self, x_BP: Tensor, z_B1Z: Tensor) -> Tensor:
        """Log-likelihood of the pixels, float32 [B], nats per image; see `losses.log_bernoulli` for values between 0 and 1."""
        h_BK = self.hidden(z_B1Z)
        assert self.to_logits is not None
        return log_bernoulli(self.to_logits(h_BK), x_BP)
