"""`ModuleSpec`s of the layers, from Megatron-Core's own parts where it has them."""

from __future__ import annotations

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.T5.t5_spec import LNImpl  # Apex's fused layer norm where Apex is present, else torch's
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import (
    CrossAttention,
    CrossAttentionSubmodules,
    SelfAttention,
    SelfAttentionSubmodules,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from .attention import SdpaCoreAttention, SingleKeyAttention, TokenCrossAttention, broadcast_dropout_add

__all__ = ["LNImpl", "decoder_block", "latent_layer", "latent_read_layer", "token_layer"]


def _self_attention(mask: AttnMaskType) -> ModuleSpec:
    parts = SelfAttentionSubmodules(
        linear_qkv=ColumnParallelLinear, core_attention=SdpaCoreAttention, linear_proj=RowParallelLinear
    )
    return ModuleSpec(module=SelfAttention, params={"attn_mask_type": mask}, submodules=parts)


def _cross_attention(module: type[CrossAttention]) -> ModuleSpec:
    parts = CrossAttentionSubmodules(
        linear_q=ColumnParallelLinear,
        linear_kv=ColumnParallelLinear,
        core_attention=SdpaCoreAttention,
        linear_proj=RowParallelLinear,
    )
    return ModuleSpec(module=module, params={"attn_mask_type": AttnMaskType.no_mask}, submodules=parts)


def _latent_self_attention(latents: int) -> ModuleSpec:
    return ModuleSpec(module=SingleKeyAttention) if latents == 1 else _self_attention(AttnMaskType.no_mask)


def _layer(**parts: object) -> ModuleSpec:
    submodules = TransformerLayerSubmodules(
        input_layernorm=LNImpl,
        self_attn_bda=get_bias_dropout_add,
        pre_mlp_layernorm=LNImpl,
        mlp=ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)),
        mlp_bda=get_bias_dropout_add,
        **parts,
    )
    return ModuleSpec(module=TransformerLayer, submodules=submodules)


def latent_layer(latents: int) -> ModuleSpec:
    """Self-attention among the latents, then FFN."""
    return _layer(self_attention=_latent_self_attention(latents))


def latent_read_layer(latents: int) -> ModuleSpec:
    """Self-attention among the latents, cross-attention from the latents to the tokens, FFN."""
    return _layer(
        self_attention=_latent_self_attention(latents),
        pre_cross_attn_layernorm=LNImpl,
        cross_attention=_cross_attention(TokenCrossAttention),
        cross_attn_bda=get_bias_dropout_add,
    )


def token_layer() -> ModuleSpec:
    """Self-attention among the tokens, which takes a mask [B, S] True at real ones, then FFN."""
    return _layer(self_attention=_self_attention(AttnMaskType.no_mask))


def decoder_block(single_latent: bool, layers: int) -> TransformerBlockSubmodules:
    """Causal layers that attend to the latents, and the final norm."""
    if single_latent:
        cross = {"cross_attention": ModuleSpec(module=SingleKeyAttention), "cross_attn_bda": broadcast_dropout_add}
    else:
        cross = {
            "pre_cross_attn_layernorm": LNImpl,
            "cross_attention": _cross_attention(CrossAttention),
            "cross_attn_bda": get_bias_dropout_add,
        }
    layer = _layer(self_attention=_self_attention(AttnMaskType.causal), **cross)
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=LNImpl)
