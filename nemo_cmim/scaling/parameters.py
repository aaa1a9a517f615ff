"""How many parameters the network has, whole and on one tensor-parallel rank."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import NetworkConfig, check

__all__ = ["ParameterCount", "parameters"]


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by what tensor parallelism does with them.

    Attributes:
        cut: In all ranks together: weights of parallel linear layers, the biases of those cut by columns, and the token table.
        copied: On each rank: norms, biases of layers cut by rows, positions, the first latents, the posterior's heads.
    """

    cut: int
    copied: int

    @property
    def total(self) -> int:
        """Parameters of the whole network."""
        return self.cut + self.copied

    def on_rank(self, tensor_parallel: int) -> int:
        """Parameters of one of `tensor_parallel` ranks.

        Raises:
            ConfigError: The ranks cannot share what is cut equally.
        """
        check(
            self.cut % tensor_parallel == 0,
            f"{self.cut:,} parameters cannot be cut into {tensor_parallel} equal parts: choose a tensor-parallel size that divides "
            "network.attention_heads, network.ffn_size and the padded vocabulary.",
        )
        return self.cut // tensor_parallel + self.copied

    def __add__(self, other: ParameterCount) -> ParameterCount:
        return ParameterCount(self.cut + other.cut, self.copied + other.copied)

    def __mul__(self, count: int) -> ParameterCount:
        return ParameterCount(self.cut * count, self.copied * count)


def parameters(network: NetworkConfig) -> ParameterCount:
    """Counts the parameters of `models.CMIMNetwork` and, cut over ranks, of `mcore.MegatronCMIMNetwork`."""
    width, ffn = network.hidden_size, network.ffn_size
    norm = ParameterCount(0, 2 * width)
    columns = ParameterCount(width * width + width, 0)  # a square layer cut by columns: its bias is cut too
    rows = ParameterCount(width * width, width)  # a square layer cut by rows: its bias is whole
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
    if network.decoder_layers:
        read = single_key if network.has_single_latent else cross_attention
        total += (self_attention + read + feed_forward) * network.decoder_layers
        total += norm + ParameterCount(network.padded_vocabulary_size, 0)
    return total
