"""The Perceiver encoder: K latents for a molecule of any length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from .layers import CrossAttentionLayer, EncoderLayer, latent_self_attention, norm

__all__ = ["PerceiverEncoder"]


class PerceiverEncoder(nn.Module):
    """K learned latents attend to the token embeddings in each block (encoder of MolMIM, Sec. D.2).

    A block is a cross-attention layer (self-attention, cross-attention to the tokens, FFN) and a latent self-attention layer
    (self-attention, FFN), with a residual connection around both. One final norm.

    Differs from the paper: the token embeddings are normalised before the cross-attention. At their initial scale (0.02) they would
    have almost no effect on the latents, and the latent term of MIM shrinks latents that do not yet carry information.
    """

    def __init__(self, config: NetworkConfig, blocks: int) -> None:
        super().__init__()
        self.latents_KD = nn.Parameter(torch.empty(config.latents, config.hidden_size))
        self.norm_tokens = norm(config)
        # `read` and `think` are names in the state dict of every model file
        self.read = nn.ModuleList(CrossAttentionLayer(config) for _ in range(blocks))
        self.think = nn.ModuleList(EncoderLayer(config, latent_self_attention(config)) for _ in range(blocks))
        self.norm = norm(config)

    def forward(self, tokens_BSD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Pools token embeddings into latents.

        Args:
            tokens_BSD: Token embeddings.
            is_token_BS: bool, True at real tokens; padding has no effect.

        Returns:
            [B, K, D].
        """
        tokens_BSD = self.norm_tokens(tokens_BSD)
        x_BKD = self.latents_KD.expand(len(tokens_BSD), -1, -1)
        for cross_layer, self_layer in zip(self.read, self.think):
            x_BKD = x_BKD + self_layer(cross_layer(x_BKD, tokens_BSD, is_token_BS))
        return self.norm(x_BKD)
