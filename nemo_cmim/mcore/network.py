"""The cMIM network on Megatron-Core: the same function as `models.CMIMNetwork`, cut over tensor-parallel ranks.

Shape letters: S encoder tokens, T decoder tokens, B molecules, K latents, D width, v vocabulary of this rank. Inside, Megatron's
order [S, B, D]; outside, ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    gather_from_tensor_model_parallel_region,
    vocab_parallel_cross_entropy,
)
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import build_module
from megatron.core.transformer.transformer_block import TransformerBlock
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from ..config import NetworkConfig, ParallelConfig
from ..errors import InvalidShapeError
from ..losses.reconstruction import sum_over_targets
from ..models.network import GaussianPosterior
from ..types import Posterior
from . import specs
from .provider import transformer_config

__all__ = ["MegatronCMIMNetwork"]


class _PerceiverEncoder(MegatronModule):
    """`models.perceiver.PerceiverEncoder` from Megatron layers."""

    def __init__(self, network: NetworkConfig, config: TransformerConfig) -> None:
        super().__init__(config=config)
        self.latents_KD = nn.Parameter(torch.empty(network.latents, network.hidden_size))
        config.init_method(self.latents_KD)
        norm = {"config": config, "hidden_size": config.hidden_size, "eps": config.layernorm_epsilon}
        self.norm_tokens = build_module(specs.LNImpl, **norm)
        blocks = range(network.encoder_layers)
        self.read = nn.ModuleList(
            build_module(specs.latent_read_layer(network.latents), config=config, layer_number=2 * i + 1) for i in blocks
        )
        self.think = nn.ModuleList(
            build_module(specs.latent_layer(network.latents), config=config, layer_number=2 * i + 2) for i in blocks
        )
        self.norm = build_module(specs.LNImpl, **norm)

    def forward(self, tokens_SBD: Tensor, is_token_BS: Tensor) -> Tensor:
        """Returns [K, B, D]."""
        tokens_SBD = self.norm_tokens(tokens_SBD)
        x_KBD = self.latents_KD.unsqueeze(1).expand(-1, tokens_SBD.shape[1], -1)
        for read, think in zip(self.read, self.think):
            latents, _ = read(x_KBD, context=tokens_SBD, context_mask=is_token_BS)
            latents, _ = think(latents)
            x_KBD = x_KBD + latents
        return self.norm(x_KBD)


class MegatronCMIMNetwork(MegatronModule):
    """Encoder q(z|x) and decoder p(x|z) from Megatron-Core layers. Needs `parallel_state` to be initialised.

    Args:
        network: Sizes.
        parallel: Tensor-parallel size.
    """

    def __init__(self, network: NetworkConfig, parallel: ParallelConfig) -> None:
        config = transformer_config(network, parallel, layers=network.decoder_layers)
        super().__init__(config=config)
        self.network_config = network
        self.embedding = LanguageModelEmbedding(config, network.padded_vocabulary_size, network.max_positions)
        self.encoder = _PerceiverEncoder(network, transformer_config(network, parallel, layers=2 * network.encoder_layers))
        self.posterior = GaussianPosterior(network)
        for head in (self.posterior.mean, self.posterior.log_variance):
            config.init_method(head.weight)
            nn.init.zeros_(head.bias)
        self.decoder = TransformerBlock(config, specs.decoder_block(network.latents, network.decoder_layers))
        self.output = ColumnParallelLinear(
            network.hidden_size,
            network.padded_vocabulary_size,
            config=config,
            init_method=config.init_method,
            bias=True,
            gather_output=False,
            skip_weight_param_allocation=True,
            tp_group=parallel_state.get_tensor_model_parallel_group(),
        )

    def _embed(self, ids_BS: Tensor) -> Tensor:
        length = ids_BS.shape[1]
        if length > self.network_config.max_positions:
            raise InvalidShapeError(
                f"{length} tokens do not fit into the {self.network_config.max_positions} positions of this model."
            )
        return self.embedding(ids_BS, torch.arange(length, device=ids_BS.device).unsqueeze(0))

    def encode(self, ids_BS: Tensor, is_token_BS: Tensor) -> Posterior:
        """q(z|x), fields [B, K, D]; as `models.CMIMNetwork.encode`."""
        return self.posterior(self.encoder(self._embed(ids_BS), is_token_BS).transpose(0, 1))

    def forward(self, decoder_BT: Tensor, z_BKD: Tensor) -> Tensor:
        """Logits [T, B, v] of this rank's share of the padded vocabulary, under teacher forcing."""
        x_TBD = self._embed(decoder_BT)
        z_KBD = z_BKD.to(x_TBD.dtype).transpose(0, 1)
        x_TBD = self.decoder(x_TBD, attention_mask=None, context=z_KBD, context_mask=None)
        logits_TBv, _ = self.output(x_TBD, weight=self.embedding.word_embeddings.weight)
        return logits_TBv

    def predicted_tokens(self, logits_TBv: Tensor) -> Tensor:
        """The most likely token at each target, int64 [B, T]; to be called before `log_p_x_given_z`, which spends the logits."""
        logits_TBV = gather_from_tensor_model_parallel_region(logits_TBv.detach(), group=self.output.tp_group)
        return logits_TBV.argmax(-1).T

    def log_p_x_given_z(self, logits_TBv: Tensor, target_BT: Tensor, is_target_BT: Tensor) -> Tensor:
        """log p(x|z) of Eq. 9 from logits that are cut over ranks: float32 [B], nats, summed over targets.

        Over several ranks Megatron's cross-entropy computes in place: fp32 logits are spent afterwards. For one rank torch's is
        faster.
        """
        target_TB = target_BT.T.contiguous()
        if self.output.tp_group.size() == 1:
            nats_TB = F.cross_entropy(logits_TBv.float().flatten(0, 1), target_TB.flatten(), reduction="none").view_as(target_TB)
        else:
            nats_TB = vocab_parallel_cross_entropy(logits_TBv.float(), target_TB)
        return sum_over_targets(-nats_TB.T, is_target_BT)
