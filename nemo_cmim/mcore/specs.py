"""`ModuleSpec`s of the layers, from Megatron-Core modules where they exist.

`backend` provides linear layers and norms; see `choose_backend`.
"""

from __future__ import annotations

import importlib.util

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import BackendSpecProvider, LocalSpecProvider
from megatron.core.transformer.attention import CrossAttention, CrossAttentionSubmodules, SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from .attention import SdpaCoreAttention, SingleKeyAttention, TokenCrossAttention, broadcast_dropout_add
from .parallel import runs_on_gpu

__all__ = ["choose_backend", "cross_attention_layer", "decoder_block", "latent_self_attention_layer", "token_layer"]


class _CpuSpecProvider(LocalSpecProvider):
    """Megatron-Core's layers, with torch's norm where the norm of Apex is installed, which needs a GPU."""

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False) -> type:
        return WrappedTorchNorm


def choose_backend(transformer_engine: bool, dtype: torch.dtype) -> BackendSpecProvider:
    """The modules for the device that the run uses, which may be a CPU on a machine with GPUs.

    On a GPU and in half precision, these are Transformer Engine's, if it is requested and installed. In fp32, Transformer Engine
    multiplies matrices in TF32, with 10 bits of mantissa, so that Megatron-Core's modules are used, with Apex's norm if that is installed.
    Attention always uses torch, whose fused kernels support the masks that the encoders need.

    Args:
        transformer_engine: Use Transformer Engine where it is possible.
        dtype: Type of the parameters in forward and backward.
    """
    if not runs_on_gpu():
        return _CpuSpecProvider()
    if transformer_engine and dtype != torch.float32 and importlib.util.find_spec("transformer_engine"):  # not run on a GPU yet
        from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

        return TESpecProvider()
    return LocalSpecProvider()


def _self_attention(backend: BackendSpecProvider, mask: AttnMaskType) -> ModuleSpec:
    parts = SelfAttentionSubmodules(
        linear_qkv=backend.column_parallel_linear(), core_attention=SdpaCoreAttention, linear_proj=backend.row_parallel_linear()
    )
    return ModuleSpec(module=SelfAttention, params={"attn_mask_type": mask}, submodules=parts)


def _cross_attention(backend: BackendSpecProvider, module: type[CrossAttention]) -> ModuleSpec:
    parts = CrossAttentionSubmodules(
        linear_q=backend.column_parallel_linear(),
        linear_kv=backend.column_parallel_linear(),
        core_attention=SdpaCoreAttention,
        linear_proj=backend.row_parallel_linear(),
    )
    return ModuleSpec(module=module, params={"attn_mask_type": AttnMaskType.no_mask}, submodules=parts)


def _latent_self_attention(backend: BackendSpecProvider, latents: int) -> ModuleSpec:
    return ModuleSpec(module=SingleKeyAttention) if latents == 1 else _self_attention(backend, AttnMaskType.no_mask)


def _layer(backend: BackendSpecProvider, **parts: object) -> ModuleSpec:
    ffn = MLPSubmodules(linear_fc1=backend.column_parallel_linear(), linear_fc2=backend.row_parallel_linear())
    submodules = TransformerLayerSubmodules(
        input_layernorm=backend.layer_norm(),
        self_attn_bda=get_bias_dropout_add,
        pre_mlp_layernorm=backend.layer_norm(),
        mlp=ModuleSpec(module=MLP, submodules=ffn),
        mlp_bda=get_bias_dropout_add,
        **parts,
    )
    return ModuleSpec(module=TransformerLayer, submodules=submodules)


def latent_self_attention_layer(backend: BackendSpecProvider, latents: int) -> ModuleSpec:
    """Self-attention among the latents, then FFN."""
    return _layer(backend, self_attention=_latent_self_attention(backend, latents))


def cross_attention_layer(backend: BackendSpecProvider, latents: int) -> ModuleSpec:
    """Self-attention among the latents, cross-attention from the latents to the tokens, FFN."""
    return _layer(
        backend,
        self_attention=_latent_self_attention(backend, latents),
        pre_cross_attn_layernorm=backend.layer_norm(),
        cross_attention=_cross_attention(backend, TokenCrossAttention),
        cross_attn_bda=get_bias_dropout_add,
    )


def token_layer(backend: BackendSpecProvider) -> ModuleSpec:
    """Self-attention among the tokens, with a mask [B, S] that is True at real tokens, then FFN."""
    return _layer(backend, self_attention=_self_attention(backend, AttnMaskType.no_mask))


def decoder_block(backend: BackendSpecProvider, single_latent: bool, layers: int) -> TransformerBlockSubmodules:
    """Causal layers that attend to the latents, and the final norm."""
    if single_latent:
        cross = {"cross_attention": ModuleSpec(module=SingleKeyAttention), "cross_attn_bda": broadcast_dropout_add}
    else:
        cross = {
            "pre_cross_attn_layernorm": backend.layer_norm(),
            "cross_attention": _cross_attention(backend, CrossAttention),
            "cross_attn_bda": get_bias_dropout_add,
        }
    layer = _layer(backend, self_attention=_self_attention(backend, AttnMaskType.causal), **cross)
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=backend.layer_norm())
