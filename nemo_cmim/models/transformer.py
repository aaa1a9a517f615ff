"""Encoders with self-attention among the tokens. B molecules, S tokens, K latents, D width."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import NetworkConfig
from .attention import SelfAttention
from .layers import EncoderLayer, norm
from .perceiver import PerceiverEncoder

__all__ = ["HybridEncoder", "TransformerEncoder", "build_encoder"]


def _layers(config: NetworkConfig) -> nn.ModuleList:
    return nn.ModuleList(EncoderLayer(config, SelfAttention(config, causal=False)) for _ in range(config.encoder_layers))


class TransformerEncoder(nn.Module):
    """One state for each token, no bottleneck (encoder of MegaMolBART, Sec. D.2); one final norm."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = _layers(config)
        self.norm = norm(config)

    def forward(self, tokens_BSD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns states [B, S, D]; those of real tokens do not depend on padding."""
        for layer in self.layers:
            tokens_BSD = layer(tokens_BSD, is_token_BS)
        return self.norm(tokens_BSD)


class HybridEncoder(nn.Module):
    """Transformer layers over the tokens, then one Perceiver block that pools them into K latents. Not in the paper."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = _layers(config)
        self.pool = PerceiverEncoder(config, blocks=1)

    def forward(self, tokens_BSD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns latents [B, K, D]."""
        for layer in self.layers:
            tokens_BSD = layer(tokens_BSD, is_token_BS)
        return self.pool(tokens_BSD, is_token_BS)


def build_encoder(config: NetworkConfig) -> nn.Module:
    """The encoder that `config.encoder` names: token embeddings [B, S, D] to [B, K, D], or to [B, S, D] without bottleneck."""
    if config.encoder == "perceiver":
        return PerceiverEncoder(config, blocks=config.encoder_layers)
    return TransformerEncoder(config) if config.encoder == "transformer" else HybridEncoder(config)
