"""Multi-head attention in the forms that the network uses. All are exact; they differ in cost.

Shape letters: B molecules, T queries, S keys, H heads, d width of a head, D = H * d, Q latents as queries.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NetworkConfig

__all__ = ["LatentCrossAttention", "SelfAttention", "SingleKeyAttention", "TokenCrossAttention", "absorbed_attention", "attend"]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0, **options: Any) -> Tensor:
    """torch's `scaled_dot_product_attention`. On a CPU, half precision is computed in fp32, as its kernels take longer."""
    dtype = query.dtype
    if query.device.type == "cpu" and dtype.itemsize == 2:
        query, key, value = query.float(), key.float(), value.float()
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, **options).to(dtype)


def absorbed_attention(
    query_BHQd: Tensor, memory_BSD: Tensor, w_key_HdD: Tensor, w_value_HdD: Tensor, is_key_BS: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Attention of few queries to many keys, with the key and value projections absorbed into the query side.

    softmax(q (W_k m)^T) (W_v m) = W_v softmax((q W_k) m^T) m, so a key costs 4 Q H D operations instead of 4 D^2. A bias of the keys
    adds the same number to every score and has no effect; a bias of the values must be added by the caller.

    Args:
        query_BHQd: Projected queries.
        memory_BSD: Sequence that is attended to, not projected.
        w_key_HdD: Weight of the key projection.
        w_value_HdD: Weight of the value projection.
        is_key_BS: bool, True at keys that may be attended to; None: all.
        dropout: Probability that an attention weight is dropped.

    Returns:
        [B, Q, H * d], before the output projection.
    """
    B, H, Q, d = query_BHQd.shape
    absorbed = torch.einsum("bhqd,hdm->bhqm", query_BHQd, w_key_HdD).reshape(B, 1, H * Q, -1)
    mask = None if is_key_BS is None else is_key_BS[:, None, None, :]
    memory = memory_BSD.unsqueeze(1)
    context = attend(absorbed, memory, memory, mask, dropout, scale=d**-0.5)
    return torch.einsum("bhqm,hdm->bqhd", context.view(B, H, Q, -1), w_value_HdD).reshape(B, Q, H * d)


def _heads(x_BTD: Tensor, heads: int) -> Tensor:
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Self-attention; if `causal`, a position attends only to itself and to earlier positions.

    Tokens of an encoder need a padding mask. Latents have no padding, and in a causal decoder it comes after all real positions.
    """

    def __init__(self, config: NetworkConfig, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = config.attention_heads, config.dropout, causal
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def gather(self, x_BTD: Tensor, is_token_BT: Tensor | None = None) -> Tensor:
        """Input of `out`: the weighted sums of values of all heads, [B, T, D]."""
        mask = None if is_token_BT is None else is_token_BT[:, None, None, :]
        query, key, value = (_heads(part, self.heads) for part in self.qkv(x_BTD).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        context_BHTd = attend(query, key, value, mask, dropout, is_causal=self.causal)
        return context_BHTd.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, is_token_BT: Tensor | None = None) -> Tensor:
        """Returns [B, T, D]; `is_token_BT` is True at positions that may be attended to; None: all."""
        return self.out(self.gather(x_BTD, is_token_BT))

    def step(self, x_B1D: Tensor, cache: tuple[Tensor, Tensor], position: int) -> Tensor:
        """One position of incremental decoding.

        Args:
            x_B1D: The newest position.
            cache: Keys and values [B, H, Tmax, d]; those of `position` are written into it.
            position: Index of the newest position.

        Returns:
            [B, 1, D].
        """
        query, key, value = (_heads(part, self.heads) for part in self.qkv(x_B1D).chunk(3, dim=-1))
        for store, new in zip(cache, (key, value)):
            store[:, :, position] = new[:, :, 0]
        keys, values = (store[:, :, : position + 1] for store in cache)
        context = F.scaled_dot_product_attention(query, keys, values)
        return self.out(context.transpose(1, 2).flatten(2))


class SingleKeyAttention(nn.Module):
    """Attention to a single key. The softmax is exactly 1, so the result is W_o W_v m, the same for every query.

    Query and key projections are omitted, since they have no effect and no gradient. Attention weights have no dropout, since it
    would drop the only weight and with it the latent.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, memory_B1D: Tensor) -> Tensor:
        """Returns [B, 1, D], which is added to each query position."""
        return self.out(self.value(memory_B1D))


class _CrossAttention(nn.Module):
    """Parameters of cross-attention: `q`, `kv` (keys first, then values), `out`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.attention_heads, config.dropout
        self.q = nn.Linear(config.hidden_size, config.hidden_size)
        self.kv = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)


class LatentCrossAttention(_CrossAttention):
    """Decoder positions attend to several latents, whose keys and values are computed once per molecule."""

    def project(self, z_BKD: Tensor, is_latent_BK: Tensor | None = None) -> tuple[Tensor, ...]:
        """Keys and values of the latents, each [B, H, K, d], and the mask [B, 1, 1, K] if some latents are padding."""
        keys_and_values = tuple(_heads(part, self.heads) for part in self.kv(z_BKD).chunk(2, dim=-1))
        return keys_and_values if is_latent_BK is None else (*keys_and_values, is_latent_BK[:, None, None, :])

    def forward(self, x_BTD: Tensor, projected: tuple[Tensor, ...]) -> Tensor:
        """Returns [B, T, D]."""
        dropout = self.dropout if self.training else 0.0
        key, value, *rest = projected
        mask = rest[0] if rest else None
        context = attend(_heads(self.q(x_BTD), self.heads), key, value, mask, dropout)
        return self.out(context.transpose(1, 2).flatten(2))


class TokenCrossAttention(_CrossAttention):
    """K latents attend to the tokens of a molecule (the bottleneck), by `absorbed_attention`."""

    def forward(self, x_BKD: Tensor, memory_BSD: Tensor, is_token_BS: Tensor | None = None) -> Tensor:
        """Returns [B, K, D]; `is_token_BS` is True at tokens that may be attended to; None: all."""
        w_key, w_value = (w.unflatten(0, (self.heads, -1)) for w in self.kv.weight.chunk(2))
        dropout = self.dropout if self.training else 0.0
        context = absorbed_attention(_heads(self.q(x_BKD), self.heads), memory_BSD, w_key, w_value, is_token_BS, dropout)
        return self.out(context + self.kv.bias.chunk(2)[1])
