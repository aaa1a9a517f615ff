"""Numbers of parameters of the network, in total and on one tensor-parallel rank."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import NetworkConfig
from ..mappings import check

__all__ = ["ParameterCount", "parameters"]


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters that tensor parallelism shards or replicates.

    Attributes:
        sharded: Over all ranks: weights of parallel linear layers, biases of column-parallel layers, and the token embedding.
        replicated: On each rank: norms, biases of row-parallel layers, positions, learned latents, and the heads of the posterior.
    """

    sharded: int
    replicated: int

    @property
    def total(self) -> int:
        """Parameters of the complete network."""
        return self.sharded + self.replicated

    def on_rank(self, tensor_parallel: int) -> int:
        """Parameters of one of `tensor_parallel` ranks.

        Raises:
            ConfigError: If the sharded parameters cannot be divided equally.
        """
        check(
            self.sharded % tensor_parallel == 0,
            f"{self.sharded:,} parameters cannot be divided among {tensor_parallel} ranks equally: choose a size that divides "
            "network.attention_heads, network.ffn_size and the padded vocabulary.",
        )
        return self.sharded // tensor_parallel + self.replicated

    def __add__(self, other: ParameterCount) -> ParameterCount:
        return ParameterCount(self.sharded + other.sharded, self.replicated + other.replicated)

    def __mul__(self, count: int) -> ParameterCount:
        return ParameterCount(self.sharded * count, self.replicated * count)


def parameters(network: NetworkConfig) -> ParameterCount:
    """Counts the parameters of `models.CMIMNetwork`, and of its sharded form `mcore.MegatronCMIMNetwork`."""
    width, ffn = network.hidden_size, network.ffn_size
    norm = ParameterCount(0, 2 * width)
    columns = ParameterCount(width * width + width, 0)  # square column-parallel layer, with a sharded bias
    rows = ParameterCount(width * width, width)  # square row-parallel layer, with a replicated bias
    feed_forward = norm + ParameterCount(2 * width * ffn + ffn, width)
    self_attention = norm + columns * 3 + rows
    single_key = columns + rows
    cross_attention = norm + columns * 3 + rows
    latent_attention = norm + single_key if network.latents == 1 else self_attention

    total = ParameterCount(network.padded_vocabulary_size * width, network.max_positions * width)
    if network.encoder != "perceiver":
        total += (self_attention + feed_forward) * network.encoder_layers
    if network.has_bottleneck:
        blocks = network.encoder_layers if network.encoder == "perceiver" else 1
        total += (latent_attention * 2 + cross_attention + feed_forward * 2) * blocks
        total += ParameterCount(0, network.latents * width) + norm * 2
    else:
        total += norm
    if network.is_stochastic:
        total += ParameterCount(0, 2 * (width * width + width))
    inputs = {"h": width, "z": network.latents * width}
    for source in network.heads.sources:
        total += ParameterCount(0, (inputs[source] + 1) * network.heads.width)
    if network.decoder_layers:
        latent_cross_attention = single_key if network.has_single_latent else cross_attention
        total += (self_attention + latent_cross_attention + feed_forward) * network.decoder_layers
        total += norm + ParameterCount(network.padded_vocabulary_size, 0)
    return total
