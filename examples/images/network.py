"""The encoder and decoder of Sec. D.1, from the package's Perceiver.

Shape letters: B images, P = 784 pixels, K steps of the latent array (400 in the paper), D = 16 width of a step, Z = 64 latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nemo_cmim.arguments import check_integer, check_positive
from nemo_cmim.config import NetworkConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses import Composition, log_bernoulli
from nemo_cmim.models import Perceiver, build_posterior
from nemo_cmim.types import Posterior

__all__ = ["PIXELS", "ImageNetwork", "NetworkSizes", "encode_all", "in_parts", "latent_config"]

PIXELS = 28 * 28
_AT_ONCE = 100  # images


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Sizes of Sec. D.1. It does not state the number of heads and the width of the feed-forward layers: here 1 and 4 times `hidden`.

    Attributes:
        latents: K, steps of the latent array, at least 2, as a layer norm over one number is constant.
        hidden: D, width of a step.
        layers: Self-attention layers after the cross-attention.
        heads: Attention heads.
        dimensions: Z, latent dimensions.
        query_scale: Factor of the first weights of the queries by which latents attend to the input; 1: torch's. See `ImageNetwork`.
    """

    latents: int = 400
    hidden: int = 16
    layers: int = 4
    heads: int = 1
    dimensions: int = 64
    query_scale: float = 16.0

    def __post_init__(self) -> None:
        for name, least in (("latents", 2), ("hidden", 1), ("layers", 1), ("heads", 1), ("dimensions", 1)):
            check_integer(name, getattr(self, name), least)
        check_positive("query_scale", self.query_scale)


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
            self.perceiver.cross_attention.q.weight.mul_(sizes.query_scale)
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

    Differs from the paper:

    * "A linear layer to (784, 16)" is read as a weight and a bias for each pixel and width (25,088 parameters). One map for all pixels
      would hide where a pixel is, and a dense map of all pixels to all widths would have 9.8 million parameters, more than all the rest.
      The decoder's "linear layer to (64, 16)" is read in the same way (2,048 parameters), so that it mirrors the encoder, though a dense
      one would have only 66,560.
    * The paper ends its decoder with a linear layer from 400 to 784, and predicts logits "by a linear layer from the decoder output". Both
      are one layer here, so h, the informative embedding, has K numbers.
    * Objectives without a density q(z|x) (AE, InfoNCE) use the encoder's 64 outputs as latent, as the package does.
    * The first weights of the queries by which latents attend to the input are `query_scale` times torch's, so that each latent attends to
      some pixels, not to the mean of all. 16 has the lowest validation loss of 1, 4, 8, 16 and 32, in nats per image (K = 49, 400 steps,
      B = 20, seed 0; `python -m examples.images train --query-scale 16 ...`):

      | set and objective | 1 | 4 | 8 | 16 | 32 |
      |---|---|---|---|---|---|
      | MNIST, AE | 213.4 | 201.4 | 184.6 | 182.0 | 187.6 |
      | MNIST, cMIM | 60.9 | 56.0 | 50.2 | 48.8 | 57.3 |
      | Fashion-MNIST, AE | 347.6 | 298.6 | 289.2 | 285.8 | 291.0 |
      | Fashion-MNIST, cMIM | 200.2 | 169.7 | 154.8 | 151.3 | 160.1 |

    Args:
        sizes: Sizes.
        objective: Determines whether there is a variance and a decoder.

    Attributes:
        min_variance: The smallest variance of q(z|x); None without a variance.
    """

    def __init__(self, sizes: NetworkSizes, objective: Composition) -> None:
        super().__init__()
        self.encoder = _Stage(PIXELS, sizes)
        self.to_latent = nn.Linear(sizes.latents, sizes.dimensions)
        config = latent_config(sizes, objective)
        self.posterior = build_posterior(config)
        self.min_variance = config.min_variance if objective.is_stochastic else None
        self.decoder = _Stage(sizes.dimensions, sizes) if objective.decodes else None
        self.to_logits = nn.Linear(sizes.latents, PIXELS) if objective.decodes else None

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.to_latent.weight.device

    def encode(self, x_BP: Tensor) -> Posterior:
        """q(z|x) of pixels in [0, 1]; each field float32 [B, 1, Z]."""
        posterior: Posterior = self.posterior(self.to_latent(self.encoder(x_BP)).unsqueeze(1))
        return posterior

    def hidden(self, z_B1Z: Tensor) -> Tensor:
        """h, from which the logits are computed: the informative embedding of images (Sec. 2.3), [B, K].

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


@torch.no_grad()
def in_parts(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Joins the values of `function` for a few images at a time, computed without gradients: memory does not grow with all images."""
    return torch.cat([function(*some) for some in zip(*(tensor.split(_AT_ONCE) for tensor in tensors))])


def encode_all(network: ImageNetwork, x_NP: Tensor) -> Posterior:
    """q(z|x) of many images, each field [N, 1, Z], without gradients."""
    found_N21Z = in_parts(lambda x_BP: torch.stack(network.encode(x_BP)[:2], dim=1), x_NP)
    return Posterior(*found_N21Z.unbind(1))
