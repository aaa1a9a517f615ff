"""The encoders of `models`, built from Megatron layers, with the same module names. K latents, S tokens, B molecules, D width."""

from __future__ import annotations

import torch
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import build_module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from ..config import NetworkConfig
from . import specs

__all__ = ["build_encoder"]


def _norm(backend: BackendSpecProvider, config: TransformerConfig) -> nn.Module:
    return build_module(backend.layer_norm(), config=config, hidden_size=config.hidden_size, eps=config.layernorm_epsilon)


def _token_layers(backend: BackendSpecProvider, network: NetworkConfig, config: TransformerConfig) -> nn.ModuleList:
    layer = specs.token_layer(backend)
    return nn.ModuleList(build_module(layer, config=config, layer_number=i + 1) for i in range(network.encoder_layers))


class _PerceiverEncoder(MegatronModule):
    """`models.perceiver.PerceiverEncoder`; its layers are numbered from `first_layer`."""

    def __init__(
        self, backend: BackendSpecProvider, network: NetworkConfig, config: TransformerConfig, blocks: int, first_layer: int = 1
    ) -> None:
        super().__init__(config=config)
        self.latents_KD = nn.Parameter(torch.empty(network.latents, network.hidden_size))
        config.init_method(self.latents_KD)
        self.norm_tokens = _norm(backend, config)
        cross_layer = specs.cross_attention_layer(backend, network.latents)
        self_layer = specs.latent_self_attention_layer(backend, network.latents)
        numbers = range(first_layer, first_layer + 2 * blocks, 2)
        self.read = nn.ModuleList(build_module(cross_layer, config=config, layer_number=n) for n in numbers)
        self.think = nn.ModuleList(build_module(self_layer, config=config, layer_number=n + 1) for n in numbers)
        self.norm = _norm(backend, config)

    def forward(self, tokens_SBD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns [K, B, D]."""
        tokens_SBD = self.norm_tokens(tokens_SBD)
        x_KBD = self.latents_KD.unsqueeze(1).expand(-1, tokens_SBD.shape[1], -1)
        for cross_layer, self_layer in zip(self.read, self.think):
            latents, _ = cross_layer(x_KBD, context=tokens_SBD, context_mask=is_token_BS)
            latents, _ = self_layer(latents)
            x_KBD = x_KBD + latents
        return self.norm(x_KBD)


class _TransformerEncoder(MegatronModule):
    """`models.transformer.TransformerEncoder`."""

    def __init__(self, backend: BackendSpecProvider, network: NetworkConfig, config: TransformerConfig) -> None:
        super().__init__(config=config)
        self.layers = _token_layers(backend, network, config)
        self.norm = _norm(backend, config)

    def forward(self, tokens_SBD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns [S, B, D]."""
        return self.norm(_through(self.layers, tokens_SBD, is_token_BS))


class _HybridEncoder(MegatronModule):
    """`models.transformer.HybridEncoder`."""

    def __init__(self, backend: BackendSpecProvider, network: NetworkConfig, config: TransformerConfig) -> None:
        super().__init__(config=config)
        self.layers = _token_layers(backend, network, config)
        self.pool = _PerceiverEncoder(backend, network, config, blocks=1, first_layer=network.encoder_layers + 1)

    def forward(self, tokens_SBD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns [K, B, D]."""
        return self.pool(_through(self.layers, tokens_SBD, is_token_BS), is_token_BS)


def _through(layers: nn.ModuleList, tokens_SBD: Tensor, is_token_BS: Tensor) -> Tensor:
    for layer in layers:
        tokens_SBD, _ = layer(tokens_SBD, attention_mask=is_token_BS)
    return tokens_SBD


def build_encoder(backend: BackendSpecProvider, network: NetworkConfig, config: TransformerConfig) -> MegatronModule:
    """The encoder that `network.encoder` names; see `models.transformer.build_encoder`."""
    if network.encoder == "perceiver":
        return _PerceiverEncoder(backend, network, config, blocks=network.encoder_layers)
    kind = _TransformerEncoder if network.encoder == "transformer" else _HybridEncoder
    return kind(backend, network, config)
