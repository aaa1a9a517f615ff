"""The Perceiver encoder: a molecule of any length becomes K latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from .layers import CrossAttentionLayer, EncoderLayer, latent_self_attention, norm

__all__ = ["PerceiverEncoder"]


class PerceiverEncoder(nn.Module):
    """K learned latents read the token embeddings again in each block (MolMIM's encoder, Sec. D.2).

    A block is a layer that reads (self-attention, cross-attention to the tokens, FFN) and a layer that thinks (self-attention,
    FFN), with a residual around both. One final norm.

    Differs from the paper: the token embeddings are normalised before they are read. At their initial scale (0.02) they would
    hardly move the latents, and MIM's latent term shrinks what does not yet carry information.
    """

    def __init__(self, config: NetworkConfig, blocks: int) -> None:
        super().__init__()
        self.latents_KD = nn.Parameter(torch.empty(config.latents, config.hidden_size))
        self.norm_tokens = norm(config)
        self.read = nn.ModuleList(CrossAttentionLayer(config) for _ in range(blocks))
        self.think = nn.ModuleList(EncoderLayer(config, latent_self_attention(config)) for _ in range(blocks))
        self.norm = norm(config)

    def forward(self, tokens_BSD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Pools token embeddings into latents.

        Args:
            tokens_BSD: Token embeddings.
            is_token_BS: bool, True at real tokens; the others have no effect.

        Returns:
            [B, K, D].
        """
        tokens_BSD = self.norm_tokens(tokens_BSD)
        x_BKD = self.latents_KD.expand(len(tokens_BSD), -1, -1)
        for read, think in zip(self.read, self.think):
            x_BKD = x_BKD + think(read(x_BKD, tokens_BSD, is_token_BS))
        return self.norm(x_BKD)
