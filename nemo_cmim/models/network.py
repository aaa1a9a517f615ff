"""The network in PyTorch: encoder, posterior, causal decoder.

It is used for inference, and is the reference implementation for tests of the Megatron network. Shape letters: B molecules, S encoder
tokens, T decoder tokens, K latents (S for a transformer encoder), D width, V padded vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NetworkConfig
from ..errors import ConfigError, InvalidShapeError
from ..types import Posterior
from .heads import PropertyHeads
from .layers import DecoderLayer, Memory, norm
from .posterior import build_posterior
from .transformer import build_encoder

__all__ = ["CMIMNetwork", "TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """Token table and learned absolute positions, shared by encoder and decoder."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        # avoids the initialisation of nn.Embedding, which is overwritten and on the meta device imports torch._dynamo (2 s)
        self.token = nn.Embedding.from_pretrained(torch.empty(config.padded_vocabulary_size, config.hidden_size), freeze=False)
        self.position = nn.Embedding.from_pretrained(torch.empty(config.max_positions, config.hidden_size), freeze=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids_BT: Tensor, first: int = 0) -> Tensor:
        """Embeds ids at positions `first`, `first + 1`, ...

        Returns:
            [B, T, D].

        Raises:
            InvalidShapeError: If there are more positions than the model has.
        """
        end = first + ids_BT.shape[1]
        if end > self.position.num_embeddings:
            raise InvalidShapeError(f"The input has {end} tokens, but this model has {self.position.num_embeddings} positions.")
        return self.dropout(self.token(ids_BT) + self.position.weight[first:end])


class CMIMNetwork(nn.Module):
    """Encoder q(z|x) and decoder p(x|z) of all objectives (Sec. 2.2, D.2); without decoder layers, only the encoder.

    Differs from the paper: token embeddings are normalised before the bottleneck (see `PerceiverEncoder`). With K = 1, attention to
    the single latent is W_o W_v z (see `SingleKeyAttention`), which is the same function with fewer parameters.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.encoder = build_encoder(config)
        self.posterior = build_posterior(config)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        if config.decoder_layers:
            self.decoder_norm = norm(config)
            self.output_bias = nn.Parameter(torch.zeros(config.padded_vocabulary_size))
        self.heads = PropertyHeads(config)
        if not self.embedding.token.weight.is_meta:
            self._initialise()

    def _initialise(self) -> None:
        """Initialises as Megatron does: N(0, init_std), outputs of residual branches scaled by 1 / sqrt(2 layers), biases zero."""
        std = self.config.init_std
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
            elif name.endswith((".out.weight", ".down.weight")):
                layers = self.config.decoder_layers if name.startswith("decoder") else self.config.encoder_depth
                nn.init.normal_(parameter, std=std / math.sqrt(2 * layers))
            else:
                nn.init.normal_(parameter, std=std)

    @property
    def _layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.decoder))

    def encode(self, ids_BS: Tensor, is_token_BS: Tensor) -> Posterior:
        """Computes q(z|x).

        Args:
            ids_BS: int64 token ids.
            is_token_BS: bool, True at real tokens; padding has no effect.

        Returns:
            Posterior with fields [B, K, D]; without bottleneck K = S, and `is_latent_BK` is True at real tokens.
        """
        posterior: Posterior = self.posterior(self.encoder(self.embedding(ids_BS), is_token_BS))
        return posterior if self.config.has_bottleneck else posterior._replace(is_latent_BK=is_token_BS)

    def hidden_states(self, decoder_BT: Tensor, z_BKD: Tensor, is_latent_BK: Tensor | None = None) -> Tensor:
        """Decoder states h after the final norm, under teacher forcing (Eq. 10).

        Args:
            decoder_BT: int64, `<BOS>` and the tokens.
            z_BKD: Latents.
            is_latent_BK: bool, True at real latents; None: all.

        Returns:
            [B, T, D]; state t predicts token t.
        """
        return self.states(decoder_BT, self.remember(z_BKD, is_latent_BK))

    def states(self, decoder_BT: Tensor, memory: list[Memory]) -> Tensor:
        """`hidden_states`, from the result of `remember`."""
        *_, last_BTD = self.layer_states(decoder_BT, memory)
        return last_BTD

    def layer_states(self, decoder_BT: Tensor, memory: list[Memory]) -> Iterator[Tensor]:
        """Yields the states [B, T, D] after each decoder layer, the last ones after the final norm.

        Without gradients, the next layer overwrites the states.
        """
        x_BTD = self.embedding(decoder_BT)
        for number, (layer, latents) in enumerate(zip(self._layers, memory), 1):
            if self.training or torch.is_grad_enabled():
                x_BTD = layer(x_BTD, latents)
            else:
                layer.infer_(x_BTD, latents)
            yield x_BTD if number < len(self.decoder) else self.decoder_norm(x_BTD)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the padded vocabulary, [..., V]. The output projection shares its weight with the token embedding."""
        return F.linear(hidden, self.embedding.token.weight, self.output_bias)

    def forward(self, decoder_BT: Tensor, z_BKD: Tensor, is_latent_BK: Tensor | None = None) -> Tensor:
        """Logits [B, T, V] of p(x|z) under teacher forcing; see `hidden_states` for arguments."""
        return self.logits(self.hidden_states(decoder_BT, z_BKD, is_latent_BK))

    def remember(self, z_BKD: Tensor, is_latent_BK: Tensor | None = None) -> list[Memory]:
        """Computes what each decoder layer needs from the latents, for `states` and `step`.

        Raises:
            ConfigError: If the network has no decoder.
        """
        if not self.config.decoder_layers:
            raise ConfigError("This network has no decoder (network.decoder_layers is 0). Use a network with decoder layers.")
        z_BKD = z_BKD.to(self.output_bias.dtype)
        return [layer.remember(z_BKD, is_latent_BK) for layer in self._layers]

    def step(self, ids_B: Tensor, memory: list[Memory], caches: list[tuple[Tensor, Tensor]], position: int) -> Tensor:
        """One step of incremental decoding.

        Args:
            ids_B: int64, the token at `position`.
            memory: Result of `remember`.
            caches: Keys and values [B, H, Tmax, d] of each layer, filled up to `position`; those of `position` are written.
            position: 0 for `<BOS>`.

        Returns:
            Logits of the next token, [B, V].
        """
        x_B1D = self.embedding(ids_B[:, None], position)
        for layer, latents, cache in zip(self._layers, memory, caches):
            x_B1D = layer.step(x_B1D, latents, cache, position)
        return self.logits(self.decoder_norm(x_B1D))[:, 0]
