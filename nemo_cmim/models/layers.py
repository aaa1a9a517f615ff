"""Pre-layer-norm transformer layers. B molecules, T positions, S tokens, K latents, D width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NetworkConfig
from .attention import LatentCrossAttention, SelfAttention, SingleKeyAttention, TokenCrossAttention

__all__ = [
    "CrossAttentionLayer",
    "DecoderLayer",
    "EncoderLayer",
    "FeedForward",
    "Memory",
    "latent_self_attention",
    "norm",
    "select",
]

Memory = Tensor | tuple[Tensor, ...]
"""What a decoder layer computes from the latents once per molecule: for K = 1 a constant [B, 1, D], else keys, values and, if some
latents are padding, their mask."""


def select(memory: list[Memory], rows: Tensor | slice) -> list[Memory]:
    """The memory of a subset of the molecules, for each layer."""
    return [tuple(part[rows] for part in m) if isinstance(m, tuple) else m[rows] for m in memory]


class FeedForward(nn.Module):
    """Two linear maps with GELU between them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.ffn_size)
        self.down = nn.Linear(config.ffn_size, config.hidden_size)

    def widen(self, x: Tensor) -> Tensor:
        """Input of `down`: [..., ffn_size]."""
        return F.gelu(self.up(x))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shape of `x`."""
        return self.down(self.widen(x))


def _add_linear_(x: Tensor, h: Tensor, linear: nn.Linear, constant: Tensor | None = None) -> None:
    """x += linear(h) + constant, in place: the matrix multiplication accumulates into x, which saves passes over memory."""
    x += linear.bias if constant is None else linear.bias + constant
    x.view(-1, linear.out_features).addmm_(h.view(-1, linear.in_features), linear.weight.t())


def norm(config: NetworkConfig) -> nn.LayerNorm:
    """Layer norm over the width."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def latent_self_attention(config: NetworkConfig) -> nn.Module:
    """Attention of the K latents to each other."""
    return SingleKeyAttention(config) if config.latents == 1 else SelfAttention(config, causal=False)


class EncoderLayer(nn.Module):
    """Self-attention among latents or tokens, then FFN."""

    def __init__(self, config: NetworkConfig, self_attention: nn.Module) -> None:
        super().__init__()
        self.norm_self, self.self_attention = norm(config), self_attention
        self.norm_ffn, self.ffn = norm(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, is_token_BT: Tensor | None = None) -> Tensor:
        """Returns [B, T, D]; `is_token_BT` is True at positions that may be attended to; None: all."""
        mask = () if is_token_BT is None else (is_token_BT,)
        x_BTD = x_BTD + self.dropout(self.self_attention(self.norm_self(x_BTD), *mask))
        return x_BTD + self.dropout(self.ffn(self.norm_ffn(x_BTD)))


class CrossAttentionLayer(nn.Module):
    """Self-attention among the latents, cross-attention from the latents to the token embeddings, FFN."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm_self, self.self_attention = norm(config), latent_self_attention(config)
        self.norm_cross, self.cross_attention = norm(config), TokenCrossAttention(config)
        self.norm_ffn, self.ffn = norm(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BKD: Tensor, tokens_BSD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns [B, K, D]."""
        x_BKD = x_BKD + self.dropout(self.self_attention(self.norm_self(x_BKD)))
        x_BKD = x_BKD + self.dropout(self.cross_attention(self.norm_cross(x_BKD), tokens_BSD, is_token_BS))
        return x_BKD + self.dropout(self.ffn(self.norm_ffn(x_BKD)))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the latents, FFN."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm_self, self.self_attention = norm(config), SelfAttention(config, causal=True)
        if config.has_single_latent:
            self.cross_attention: nn.Module = SingleKeyAttention(config)
        else:
            self.norm_cross, self.cross_attention = norm(config), LatentCrossAttention(config)
        self.norm_ffn, self.ffn = norm(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def remember(self, z_BKD: Tensor, is_latent_BK: Tensor | None) -> Memory:
        """Computes what this layer needs from the latents, once per molecule."""
        if isinstance(self.cross_attention, LatentCrossAttention):
            return self.cross_attention.project(z_BKD, is_latent_BK)
        return self.cross_attention(z_BKD)

    def forward(self, x_BTD: Tensor, memory: Memory) -> Tensor:
        """Returns [B, T, D]."""
        x_BTD = x_BTD + self.dropout(self.self_attention(self.norm_self(x_BTD)))
        return self._cross_attend_and_feed(x_BTD, memory)

    def infer_(self, x_BTD: Tensor, memory: Memory) -> None:
        """`forward` in evaluation mode and without gradients; the result overwrites `x_BTD`."""
        context_BTD = self.self_attention.gather(self.norm_self(x_BTD))
        if isinstance(memory, tuple):
            _add_linear_(x_BTD, context_BTD, self.self_attention.out)
            x_BTD += self.cross_attention(self.norm_cross(x_BTD), memory)
        else:
            _add_linear_(x_BTD, context_BTD, self.self_attention.out, memory)
        _add_linear_(x_BTD, self.ffn.widen(self.norm_ffn(x_BTD)), self.ffn.down)

    def step(self, x_B1D: Tensor, memory: Memory, cache: tuple[Tensor, Tensor], position: int) -> Tensor:
        """One position of incremental decoding; see `SelfAttention.step`. Returns [B, 1, D]."""
        x_B1D = x_B1D + self.self_attention.step(self.norm_self(x_B1D), cache, position)
        return self._cross_attend_and_feed(x_B1D, memory)

    def _cross_attend_and_feed(self, x_BTD: Tensor, memory: Memory) -> Tensor:
        if isinstance(memory, tuple):
            update = self.cross_attention(self.norm_cross(x_BTD), memory)
        else:
            update = memory.expand_as(x_BTD) if self.training else memory  # each position has its own dropout mask
        x_BTD = x_BTD + self.dropout(update)
        return x_BTD + self.dropout(self.ffn(self.norm_ffn(x_BTD)))
