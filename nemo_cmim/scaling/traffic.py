"""Memory traffic of elementwise operations, messages between tensor-parallel ranks, and activations that are kept for backward.

The numbers in `_LAYERS` were counted on the Megatron network with a dispatch mode (inputs and outputs of every operation that is not a
view) and with hooks on saved tensors; `tests/scaling/test_traffic.py` counts them again. See `flops` for shape letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import NetworkConfig
from .flops import Workload

__all__ = ["Message", "activation_bytes", "elementwise_bytes", "kernels", "tensor_parallel_messages"]

_DROPOUT_PASSES = 4.5  # fused dropout, forward and backward: input, output, gradients, and a mask of one byte per element
_FUSED_ATTENTION = 12  # passes: q, k, v, context in forward; the same with gradients in backward
_HEAD_KERNELS = 52  # embedding, output layer, cross-entropy
_LATENT_KERNELS = 112  # posterior, noise, terms of the latents


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One layer or Perceiver block, in forward and backward. A pass is one read or write of a row of D (or F) elements."""

    passes_d: float
    passes_f: float
    kernels: int
    dropouts: int
    saved_d: float
    saved_f: float


_LAYERS = {
    "decoder, one latent": _Layer(passes_d=58, passes_f=8, kernels=46, dropouts=3, saved_d=8, saved_f=2),
    "decoder": _Layer(passes_d=84, passes_f=8, kernels=60, dropouts=3, saved_d=12, saved_f=2),
    "tokens": _Layer(passes_d=55, passes_f=8, kernels=36, dropouts=2, saved_d=8, saved_f=2),
    "block, one latent": _Layer(passes_d=92, passes_f=16, kernels=97, dropouts=5, saved_d=14, saved_f=4),
    "block": _Layer(passes_d=124, passes_f=16, kernels=111, dropouts=5, saved_d=28, saved_f=4),
}
_BLOCK_PASSES_OF_TOKENS = 14  # over the tokens that a block attends to: fused attention, and accumulation of gradients
_BLOCK_PASSES_OF_WEIGHTS = 4  # over D x D: gradients of absorbed keys and values are concatenated


@dataclass(frozen=True)
class Message:
    """`count` collectives of one kind over tensor-parallel ranks.

    Attributes:
        name: Part of the network that sends them.
        kind: all_reduce | all_gather.
        count: Number of collectives.
        elements: Elements of each rank.
        is_fp32: Whether they are sent in fp32 in every precision.
    """

    name: str
    kind: str
    count: int
    elements: int
    is_fp32: bool = False


def _stacks(network: NetworkConfig, work: Workload) -> Iterator[tuple[_Layer, int, int]]:
    """Yields each kind of layer, the number of layers, and their rows."""
    if network.decoder_layers:
        kind = "decoder, one latent" if network.has_single_latent else "decoder"
        yield _LAYERS[kind], network.decoder_layers, work.molecules * work.decoder_tokens
    if network.encoder != "perceiver":
        yield _LAYERS["tokens"], network.encoder_layers * work.encodings, work.molecules * work.encoder_tokens
    if network.has_bottleneck:
        kind = "block, one latent" if network.latents == 1 else "block"
        yield _LAYERS[kind], _blocks(network) * work.encodings, work.molecules * network.latents


def _blocks(network: NetworkConfig) -> int:
    if not network.has_bottleneck:
        return 0
    return network.encoder_layers if network.encoder == "perceiver" else 1


def kernels(network: NetworkConfig, work: Workload) -> int:
    """Number of operations in forward and backward of one micro-batch, including matrix multiplications."""
    stacks = list(_stacks(network, work))
    sites = 2 * bool(network.dropout)  # dropout is one operation in forward and one in backward
    head = _HEAD_KERNELS + _LATENT_KERNELS * network.is_stochastic
    return head + sum(count * (layer.kernels + sites * layer.dropouts) for layer, count, _ in stacks)


def elementwise_bytes(network: NetworkConfig, work: Workload, itemsize: int, tensor_parallel: int = 1) -> float:
    """Bytes that operations other than matrix multiplications read and write in forward and backward of one micro-batch.

    Each operation is a separate pass over memory, as in eager PyTorch; attention is fused. The cross-entropy is in fp32.

    Args:
        network: Sizes.
        work: The micro-batch.
        itemsize: Bytes of an element: 4 for fp32, 2 for fp16 and bf16.
        tensor_parallel: Number of ranks that the FFN, fused attention and the vocabulary are divided among.
    """
    width, ffn = network.hidden_size, network.ffn_size
    dropout = _DROPOUT_PASSES * bool(network.dropout)
    tokens = work.molecules * work.encoder_tokens * work.encodings
    passes = 0.0
    for layer, count, rows in _stacks(network, work):
        heads = 8 * network.attention_heads if layer is _LAYERS["block"] else 0  # absorbed queries are copied head by head
        sharded = (_FUSED_ATTENTION if layer.saved_d in (8, 12) else 0) + heads
        replicated = layer.passes_d - (sharded - heads) + dropout * layer.dropouts
        passes += count * rows * (replicated * width + (sharded * width + layer.passes_f * ffn) / tensor_parallel)
    passes += _blocks(network) * width * (_BLOCK_PASSES_OF_TOKENS * tokens + _BLOCK_PASSES_OF_WEIGHTS * width / tensor_parallel)
    passes += (9 + dropout) * width * tokens + 144 * width * work.molecules * (network.latents if network.has_bottleneck else 1)
    passes += 9 * (network.padded_vocabulary_size / tensor_parallel + network.max_positions) * width
    total = passes * itemsize
    if network.decoder_layers:
        rows = work.molecules * work.decoder_tokens
        total += rows * ((12 + dropout) * width * itemsize + 12 * 4 * network.padded_vocabulary_size / tensor_parallel)
    return total


def activation_bytes(network: NetworkConfig, work: Workload, itemsize: int, tensor_parallel: int = 1) -> float:
    """Bytes that forward keeps for backward, without recomputation; overhead of the allocator is not included."""
    width = network.hidden_size
    tokens = work.molecules * work.encoder_tokens * work.encodings
    total = 0.0
    for layer, count, rows in _stacks(network, work):
        absorbed = 2 * network.attention_heads if layer in (_LAYERS["block"], _LAYERS["block, one latent"]) else 0
        sharded = (absorbed + 4) * width + layer.saved_f * network.ffn_size  # heads (q, k, v, context) and FFN
        numbers = (layer.saved_d - 4) * width + sharded / tensor_parallel
        masks = layer.dropouts * width * bool(network.dropout)
        total += count * rows * (numbers * itemsize + masks)
    total += 2 * width * tokens * itemsize
    if network.decoder_layers:
        rows = work.molecules * work.decoder_tokens
        halves = itemsize * (itemsize != 4)  # logits in half precision in addition to fp32, and log-probabilities
        total += rows * (2 * width * itemsize + network.padded_vocabulary_size / tensor_parallel * (2 * halves + 4))
    return total


def tensor_parallel_messages(network: NetworkConfig, work: Workload) -> list[Message]:
    """Collectives of tensor-parallel ranks in forward and backward of one micro-batch, if there are several ranks.

    A column-parallel layer sums the gradient of its input in backward, a row-parallel layer its output in forward: each attention
    and each FFN has one of each.
    """
    width, molecules = network.hidden_size, work.molecules
    tokens, latents = molecules * work.encoder_tokens * width, molecules * network.latents * width
    messages = [Message("encoder's embedding", "all_reduce", work.encodings, tokens)]
    if network.encoder != "perceiver":
        messages.append(Message("token layers", "all_reduce", 4 * network.encoder_layers * work.encodings, tokens))
    blocks = _blocks(network) * work.encodings
    if blocks:
        messages.append(
            Message("latents in blocks", "all_reduce", 10 * blocks, latents)
        )  # two self-attentions, a cross-attention, two FFNs
        messages.append(Message("tokens in cross-attention of blocks", "all_reduce", blocks, tokens))
    if network.decoder_layers:
        rows = molecules * work.decoder_tokens
        layers, is_single = network.decoder_layers, network.has_single_latent
        messages.append(Message("decoder's embedding and output", "all_reduce", 2, rows * width))
        messages.append(Message("decoder layers", "all_reduce", (4 if is_single else 6) * layers, rows * width))
        memory = latents if network.has_bottleneck else tokens
        messages.append(
            Message("latents in cross-attention of the decoder", "all_reduce", (2 if is_single else 1) * layers, memory)
        )
        messages.append(Message("cross-entropy", "all_reduce", 3, rows, is_fp32=True))
        messages.append(Message("predicted tokens", "all_gather", 1, 2 * rows, is_fp32=True))  # of each rank: score and token
    return messages
