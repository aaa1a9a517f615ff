"""Matrix multiplications of the network and their floating-point operations: 2 for each multiplication with addition.

Training logs FLOP/s with this module; the planner builds on it.

Shape letters: B molecules, S encoder tokens, T decoder positions, K latents (S without bottleneck), D width, F width of the FFN,
H heads, V padded vocabulary, C candidates of the contrastive term.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import NetworkConfig
from ..mappings import check

__all__ = ["MatMul", "Workload", "forward_flops", "matmuls", "training_flops"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Sizes of one padded micro-batch.

    Attributes:
        molecules: B.
        encoder_tokens: S, padding included, since padding is computed like other positions.
        decoder_tokens: T, `<BOS>` and padding included; S + 1 unless the encoder has a different SMILES.
        candidates: C, number of latents that each latent is compared with: B for local negatives, the latents of all ranks and of the
            queue for global negatives; 0 without a contrastive term.
        encodings: Number of encoder passes: 2 for objectives that use a second view.
    """

    molecules: int
    encoder_tokens: int
    decoder_tokens: int
    candidates: int = 0
    encodings: int = 1

    def __post_init__(self) -> None:
        for name in ("molecules", "encoder_tokens", "decoder_tokens", "encodings"):
            check(getattr(self, name) >= 1, f"workload.{name} must be at least 1, found {getattr(self, name)}.")
        check(self.candidates >= 0, f"workload.candidates must be at least 0, found {self.candidates}.")


@dataclass(frozen=True)
class MatMul:
    """`count` multiplications of an m x k and a k x n matrix in forward, and `backward` times as many in backward.

    Backward requires two multiplications of the same size, one for the gradient of each factor.
    """

    name: str
    count: int
    m: int
    k: int
    n: int
    backward: int = 2

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of forward."""
        return 2 * self.count * self.m * self.k * self.n

    @property
    def training_flops(self) -> int:
        """Floating-point operations of forward and backward."""
        return (1 + self.backward) * self.forward_flops

    @property
    def elements(self) -> int:
        """Elements that one pass reads and writes: both factors and the result."""
        return self.count * (self.m * self.k + self.k * self.n + self.m * self.n)


def matmuls(network: NetworkConfig, work: Workload, tensor_parallel: int = 1) -> list[MatMul]:
    """All matrix multiplications of a forward pass on one tensor-parallel rank.

    Causal attention is counted in full, T x T, as it is computed: at these lengths the matrix fits into one tile of a fused kernel, so
    no part is skipped. (torch's counter counts the same.) A fused kernel recomputes scores in backward; this is a cost of the kernel,
    not of the network, and is not counted.

    Args:
        network: Sizes.
        work: The micro-batch.
        tensor_parallel: Number of ranks that attention heads, FFN and vocabulary are divided among. Each rank computes the heads of the
            posterior and the contrastive term in full.

    Raises:
        ConfigError: If these sizes are not multiples of the number of ranks.
    """
    for name in ("attention_heads", "ffn_size", "padded_vocabulary_size"):
        size = getattr(network, name)
        check(
            size % tensor_parallel == 0,
            f"network.{name} ({size}) must be a multiple of the tensor-parallel size ({tensor_parallel}).",
        )
    encoder = list(_encoder(network, work, tensor_parallel)) * work.encodings
    result = [*encoder, *_decoder(network, work, tensor_parallel)]
    inputs = {"h": network.hidden_size, "z": network.latents * network.hidden_size}
    for source in network.heads.sources:
        result.append(MatMul("property heads", 1, work.molecules, inputs[source], network.heads.width))
    if work.candidates:
        width = network.hidden_size * (network.latents if network.has_bottleneck else 1)
        # backward recomputes the similarities, then computes the gradient of each factor
        result.append(MatMul("similarities", 1, work.molecules, width, work.candidates, backward=3))
    return result


def forward_flops(network: NetworkConfig, work: Workload, tensor_parallel: int = 1) -> int:
    """Floating-point operations of the matrix multiplications of one forward pass; elementwise operations are not counted."""
    return sum(matmul.forward_flops for matmul in matmuls(network, work, tensor_parallel))


def training_flops(network: NetworkConfig, work: Workload, tensor_parallel: int = 1) -> int:
    """Floating-point operations of forward and backward of one micro-batch; the optimiser has no matrix multiplications."""
    return sum(matmul.training_flops for matmul in matmuls(network, work, tensor_parallel))


def _encoder(network: NetworkConfig, work: Workload, ranks: int) -> Iterator[MatMul]:
    tokens = work.molecules * work.encoder_tokens
    if network.encoder != "perceiver":
        for _ in range(network.encoder_layers):
            yield from _self_attention(network, work.molecules, work.encoder_tokens, ranks)
            yield from _ffn(network, tokens, ranks)
    if network.has_bottleneck:
        for _ in range(network.encoder_layers if network.encoder == "perceiver" else 1):
            yield from _latent_self_attention(network, work.molecules, ranks)
            yield from _token_cross_attention(network, work, ranks)
            yield from _ffn(network, work.molecules * network.latents, ranks)
            yield from _latent_self_attention(network, work.molecules, ranks)
            yield from _ffn(network, work.molecules * network.latents, ranks)
    if network.is_stochastic:
        yield MatMul("mean and variance", 2, work.molecules * network.latents, network.hidden_size, network.hidden_size)


def _decoder(network: NetworkConfig, work: Workload, ranks: int) -> Iterator[MatMul]:
    if not network.decoder_layers:
        return
    rows, width = work.molecules * work.decoder_tokens, network.hidden_size
    latents = network.latents if network.has_bottleneck else work.encoder_tokens
    for _ in range(network.decoder_layers):
        yield from _self_attention(network, work.molecules, work.decoder_tokens, ranks)
        if network.has_single_latent:
            yield from _single_key(network, work.molecules, ranks)
        else:
            yield MatMul("queries", 1, rows, width, width // ranks)
            yield MatMul("keys and values", 1, work.molecules * latents, width, 2 * width // ranks)
            yield from _attention(network, work.molecules, work.decoder_tokens, latents, ranks)
            yield MatMul("out", 1, rows, width // ranks, width)
        yield from _ffn(network, rows, ranks)
    yield MatMul("logits", 1, rows, width, network.padded_vocabulary_size // ranks)


def _attention(network: NetworkConfig, molecules: int, queries: int, keys: int, ranks: int) -> Iterator[MatMul]:
    heads = molecules * network.attention_heads // ranks
    yield MatMul("scores", heads, queries, network.head_size, keys)
    yield MatMul("weighted values", heads, queries, keys, network.head_size)


def _self_attention(network: NetworkConfig, molecules: int, length: int, ranks: int) -> Iterator[MatMul]:
    width = network.hidden_size
    yield MatMul("qkv", 1, molecules * length, width, 3 * width // ranks)
    yield from _attention(network, molecules, length, length, ranks)
    yield MatMul("out", 1, molecules * length, width // ranks, width)


def _single_key(network: NetworkConfig, molecules: int, ranks: int) -> Iterator[MatMul]:
    width = network.hidden_size
    yield MatMul("value", 1, molecules, width, width // ranks)
    yield MatMul("out", 1, molecules, width // ranks, width)


def _latent_self_attention(network: NetworkConfig, molecules: int, ranks: int) -> Iterator[MatMul]:
    if network.latents == 1:
        yield from _single_key(network, molecules, ranks)
    else:
        yield from _self_attention(network, molecules, network.latents, ranks)


def _token_cross_attention(network: NetworkConfig, work: Workload, ranks: int) -> Iterator[MatMul]:
    """The key and value projections are absorbed into the query side: they act on the K latents, head by head."""
    width, rows, heads = network.hidden_size, work.molecules * network.latents, network.attention_heads // ranks
    yield MatMul("queries", 1, rows, width, width // ranks)
    yield MatMul("absorbed keys", heads, rows, network.head_size, width)
    yield MatMul("scores", work.molecules, heads * network.latents, width, work.encoder_tokens)
    yield MatMul("weighted tokens", work.molecules, heads * network.latents, work.encoder_tokens, width)
    yield MatMul("absorbed values", heads, rows, width, network.head_size)
    yield MatMul("out", 1, rows, width // ranks, width)


def _ffn(network: NetworkConfig, rows: int, ranks: int) -> Iterator[MatMul]:
    yield MatMul("ffn up", 1, rows, network.hidden_size, network.ffn_size // ranks)
    yield MatMul("ffn down", 1, rows, network.ffn_size // ranks, network.hidden_size)
