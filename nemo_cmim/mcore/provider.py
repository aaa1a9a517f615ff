"""Converts `NetworkConfig` to Megatron-Core's `TransformerConfig`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from ..config import NetworkConfig, ParallelConfig

__all__ = ["transformer_config"]


def transformer_config(network: NetworkConfig, parallel: ParallelConfig, *, layers: int) -> TransformerConfig:
    """The settings of one stack of Megatron layers.

    Fusions are off: they require CUDA, and the fused GELU is the tanh approximation, whereas this network uses the exact GELU.

    Args:
        network: Sizes of the network.
        parallel: Tensor-parallel size; must match the initialised process groups.
        layers: Layers of this stack; outputs of residual branches are initialised with a scale of 1 / sqrt(2 layers).
    """
    return TransformerConfig(
        num_layers=layers,
        hidden_size=network.hidden_size,
        num_attention_heads=network.attention_heads,
        ffn_hidden_size=network.ffn_size,
        hidden_dropout=network.dropout,
        attention_dropout=network.dropout,
        layernorm_epsilon=network.layer_norm_eps,
        init_method_std=network.init_std,
        activation_func=F.gelu,
        add_bias_linear=True,
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        use_cpu_initialization=True,  # the same initial weights for every tensor-parallel size
        params_dtype=torch.float32,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        apply_rope_fusion=False,
        deterministic_mode=torch.are_deterministic_algorithms_enabled(),  # of the token embedding's gradient
    )
