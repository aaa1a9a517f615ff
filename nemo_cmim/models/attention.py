"""Multi-head attention in the three forms that the network needs; each is exact, they differ in cost.

Shape letters: B molecules, T queries, S keys, H heads, d width of a head, D = H * d, Q latents that ask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NetworkConfig

__all__ = ["LatentCrossAttention", "SelfAttention", "SingleKeyAttention", "TokenCrossAttention", "absorbed_attention"]


def absorbed_attention(
    query_BHQd: Tensor, memory_BSD: Tensor, w_key_HdD: Tensor, w_value_HdD: Tensor, is_key_BS: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Attention of few queries to many keys without projecting the keys.

    softmax(q (W_k m)^T) (W_v m) = W_v softmax((q W_k) m^T) m: the projections move to the side of the queries, so a key costs
    4 Q H D operations in place of 4 D^2. A bias of the keys adds the same to every score and drops out; a bias of the values is the
    caller's to add.

    Args:
        query_BHQd: Projected queries.
        memory_BSD: What is attended to, not projected.
        w_key_HdD: Weight that would project keys.
        w_value_HdD: Weight that would project values.
        is_key_BS: bool, True at keys that may be attended to; None means all.
        dropout: Probability that an attention weight is dropped.

    Returns:
        [B, Q, H * d], in front of the output projection.
    """
    B, H, Q, d = query_BHQd.shape
    absorbed = torch.einsum("bhqd,hdm->bhqm", query_BHQd, w_key_HdD).reshape(B, 1, H * Q, -1)
    mask = None if is_key_BS is None else is_key_BS[:, None, None, :]
    memory = memory_BSD.unsqueeze(1)
    context = F.scaled_dot_product_attention(absorbed, memory, memory, mask, dropout, scale=d**-0.5)
    return torch.einsum("bhqm,hdm->bqhd", context.view(B, H, Q, -1), w_value_HdD).reshape(B, Q, H * d)


def _heads(x_BTD: Tensor, heads: int) -> Tensor:
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Positions attend to each other; causal ones only to themselves and what came before.

    Tokens of an encoder need a mask of what is padding. Latents have none, and in a causal decoder it stands behind all that matters.
    """

    def __init__(self, config: NetworkConfig, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = config.attention_heads, config.dropout, causal
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def gather(self, x_BTD: Tensor, is_token_BT: Tensor | None = None) -> Tensor:
        """What `out` takes: the heads' weighted sums of values, [B, T, D]."""
        mask = None if is_token_BT is None else is_token_BT[:, None, None, :]
        query, key, value = (_heads(part, self.heads) for part in self.qkv(x_BTD).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        context_BHTd = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=self.causal)
        return context_BHTd.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, is_token_BT: Tensor | None = None) -> Tensor:
        """Returns [B, T, D]; `is_token_BT` is True at positions that may be attended to, None means all."""
        return self.out(self.gather(x_BTD, is_token_BT))

    def step(self, x_B1D: Tensor, cache: tuple[Tensor, Tensor], position: int) -> Tensor:
        """One position of incremental decoding.

        Args:
            x_B1D: The newest position.
            cache: Keys and values [B, H, Tmax, d]; those at `position` are written here.
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
    """Attention to a single key. Its softmax is exactly 1, so what is left is W_o W_v m, the same for every query.

    Queries and keys would have no effect and no gradient: they are no parameters here. Nor is there dropout of attention weights:
    it would drop the only one, and the whole molecule with it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, memory_B1D: Tensor) -> Tensor:
        """Returns [B, 1, D], to be added to each query's position."""
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
        """Keys and values of the latents, each [B, H, K, d], and where some are padding the mask [B, 1, 1, K]."""
        keys_and_values = tuple(_heads(part, self.heads) for part in self.kv(z_BKD).chunk(2, dim=-1))
        return keys_and_values if is_latent_BK is None else (*keys_and_values, is_latent_BK[:, None, None, :])

    def forward(self, x_BTD: Tensor, projected: tuple[Tensor, ...]) -> Tensor:
        """Returns [B, T, D]."""
        dropout = self.dropout if self.training else 0.0
        key, value, *rest = projected
        mask = rest[0] if rest else None
        context = F.scaled_dot_product_attention(_heads(self.q(x_BTD), self.heads), key, value, mask, dropout)
        return self.out(context.transpose(1, 2).flatten(2))


class TokenCrossAttention(_CrossAttention):
    """K latents attend to the tokens of a molecule (the bottleneck), by `absorbed_attention`."""

    def forward(self, x_BKD: Tensor, memory_BSD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns [B, K, D]."""
        w_key, w_value = (w.unflatten(0, (self.heads, -1)) for w in self.kv.weight.chunk(2))
        dropout = self.dropout if self.training else 0.0
        context = absorbed_attention(_heads(self.q(x_BKD), self.heads), memory_BSD, w_key, w_value, is_token_BS, dropout)
        return self.out(context + self.kv.bias.chunk(2)[1])
