"""Attention modules for the specs of Megatron-Core layers.

Shape letters, in the order of Megatron: S positions, B molecules, D width; K latents; H heads of this tensor-parallel rank, d width of
a head.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch.nn.functional as F
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, copy_to_tensor_model_parallel_region
from megatron.core.transformer.attention import CrossAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from ..models.attention import absorbed_attention, attend
from .random import tensor_parallel_rng

__all__ = ["SdpaCoreAttention", "SingleKeyAttention", "TokenCrossAttention", "broadcast_dropout_add"]


class SdpaCoreAttention(MegatronModule):
    """Core attention on torch's `scaled_dot_product_attention`; runs on CPU, whereas Megatron's own requires CUDA buffers."""

    def __init__(self, config: TransformerConfig, layer_number: int, attn_mask_type: AttnMaskType, **_: Any) -> None:
        super().__init__(config=config)
        self.causal = attn_mask_type == AttnMaskType.causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any) -> Tensor:
        """Attention of [S, B, H, d] queries; returns [S, B, H * d]. `attention_mask` [B, keys] is True at real keys; None: all."""
        mask = None if attention_mask is None else attention_mask[:, None, None, :]
        query, key, value = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        dropout = self.config.attention_dropout if self.training else 0.0
        # Ranks have different heads, which need different dropout.
        with tensor_parallel_rng() if dropout else nullcontext():
            context_BHSd = attend(query, key, value, mask, dropout, is_causal=self.causal)
        return context_BHSd.permute(2, 0, 1, 3).flatten(2)


class SingleKeyAttention(MegatronModule):
    """`models.attention.SingleKeyAttention` with tensor-parallel linear layers; replaces self- or cross-attention."""

    def __init__(self, config: TransformerConfig, layer_number: int, pg_collection: Any = None, **_: Any) -> None:
        super().__init__(config=config)
        width = config.hidden_size
        shared = {"config": config, "bias": True, "tp_group": pg_collection.tp}
        self.linear_v = ColumnParallelLinear(width, width, init_method=config.init_method, gather_output=False, **shared)
        self.linear_proj = RowParallelLinear(
            width, width, init_method=config.output_layer_init_method, input_is_parallel=True, skip_bias_add=True, **shared
        )

    def forward(self, hidden_states: Tensor, *, key_value_states: Tensor | None = None, **_: Any) -> tuple[Tensor, Tensor | None]:
        """Attends to the single row of `key_value_states`, or of `hidden_states` if it is None; returns [1, B, D] and its bias."""
        memory_1BD = hidden_states if key_value_states is None else key_value_states
        value, _ = self.linear_v(memory_1BD)
        return self.linear_proj(value)


def broadcast_dropout_add(training: bool, fused: bool) -> Callable[[tuple[Tensor, Tensor | None], Tensor, float], Tensor]:
    """Megatron's bias-dropout-add for a [1, B, D] update that is equal at all positions; dropout masks differ between positions."""

    def add(update_and_bias: tuple[Tensor, Tensor | None], residual_SBD: Tensor, probability: float) -> Tensor:
        update_1BD, bias = update_and_bias
        if bias is not None:
            update_1BD = update_1BD + bias
        if training and probability:
            update_1BD = F.dropout(update_1BD.expand_as(residual_SBD), probability)
        return residual_SBD + update_1BD

    return add


class TokenCrossAttention(CrossAttention):
    """`models.attention.TokenCrossAttention`: K latents attend to the tokens, without projecting keys and values."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, key_value_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from latents [K, B, D] to tokens [S, B, D]; `attention_mask` [B, S] is True at real ones. Returns [K, B, D] and bias."""
        heads, width = self.num_attention_heads_per_partition, self.hidden_size_per_attention_head
        query, _ = self.linear_q(hidden_states)
        query_BHKd = query.unflatten(-1, (heads, width)).permute(1, 2, 0, 3)
        tokens_SBD = copy_to_tensor_model_parallel_region(key_value_states, group=self.pg_collection.tp)
        if tokens_SBD.requires_grad:  # Megatron 0.16 sums only contiguous gradients over ranks
            tokens_SBD.register_hook(Tensor.contiguous)
        w_key, w_value = self.linear_kv.weight.unflatten(0, (heads, 2, width)).unbind(1)
        bias_value = self.linear_kv.bias.unflatten(0, (heads, 2, width))[:, 1].flatten()
        dropout = self.config.attention_dropout if self.training else 0.0
        with tensor_parallel_rng() if dropout else nullcontext():  # ranks have different heads, which need different dropout
            context_BKD = absorbed_attention(query_BHKd, tokens_SBD.transpose(0, 1), w_key, w_value, attention_mask, dropout)
        return self.linear_proj((context_BKD + bias_value).transpose(0, 1))
