"""The network on Megatron-Core: the same function as `models.CMIMNetwork`, divided among tensor-parallel ranks.

Shape letters: S encoder tokens, T decoder tokens, B molecules, K latents (S for a transformer encoder), D width, v part of the
vocabulary on this rank. Internally, tensors have Megatron's order [S, B, D]; inputs and outputs have the order of `models`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.tensor_parallel import ColumnParallelLinear, vocab_parallel_cross_entropy
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlock
from torch import Tensor, nn

from ..config import NetworkConfig, ParallelConfig
from ..errors import InvalidShapeError
from ..losses.reconstruction import sum_over_targets
from ..models.heads import PropertyHeads
from ..models.posterior import build_posterior
from ..types import Posterior
from . import specs
from .encoders import build_encoder
from .provider import transformer_config

__all__ = ["MegatronCMIMNetwork"]


class MegatronCMIMNetwork(MegatronModule):
    """Encoder q(z|x) and decoder p(x|z) from Megatron-Core layers. Requires an initialised `parallel_state`.

    Args:
        network: Sizes.
        parallel: Tensor-parallel size, and whether to use Transformer Engine.
        dtype: Type of the parameters in forward and backward, to which the caller converts them.
    """

    def __init__(self, network: NetworkConfig, parallel: ParallelConfig, dtype: torch.dtype = torch.float32) -> None:
        config = transformer_config(network, parallel, layers=max(1, network.decoder_layers))
        super().__init__(config=config)
        self.network_config = network
        self.embedding = LanguageModelEmbedding(config, network.padded_vocabulary_size, network.max_positions)
        backend = specs.choose_backend(parallel.transformer_engine, dtype)
        self.encoder = build_encoder(backend, network, transformer_config(network, parallel, layers=network.encoder_depth))
        self.posterior = build_posterior(network)
        self.heads = PropertyHeads(network)
        for name, parameter in (*self.posterior.named_parameters(), *self.heads.named_parameters()):
            config.init_method(parameter) if name.endswith("weight") else nn.init.zeros_(parameter)
        if not network.decoder_layers:
            return
        self.decoder = TransformerBlock(config, specs.decoder_block(backend, network.has_single_latent, network.decoder_layers))
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
                f"The input has {length} tokens, but this model has {self.network_config.max_positions} positions."
            )
        return self.embedding(ids_BS, torch.arange(length, device=ids_BS.device).unsqueeze(0))

    def encode(self, ids_BS: Tensor, is_token_BS: Tensor) -> Posterior:
        """Computes q(z|x), fields [B, K, D]; see `models.CMIMNetwork.encode`."""
        posterior: Posterior = self.posterior(self.encoder(self._embed(ids_BS), is_token_BS).transpose(0, 1))
        return posterior if self.network_config.has_bottleneck else posterior._replace(is_latent_BK=is_token_BS)

    def hidden_states(self, decoder_BT: Tensor, z_BKD: Tensor, is_latent_BK: Tensor | None = None) -> Tensor:
        """Decoder states h [T, B, D] after the final norm, under teacher forcing (Eq. 10)."""
        x_TBD = self._embed(decoder_BT)
        z_KBD = z_BKD.to(x_TBD.dtype).transpose(0, 1)
        states_TBD: Tensor = self.decoder(x_TBD, attention_mask=None, context=z_KBD, context_mask=is_latent_BK)
        return states_TBD

    def logits(self, states_TBD: Tensor) -> Tensor:
        """Logits [T, B, v] of this rank's part of the padded vocabulary."""
        logits_TBv, _ = self.output(states_TBD, weight=self.embedding.word_embeddings.weight)
        return logits_TBv

    def forward(self, decoder_BT: Tensor, z_BKD: Tensor, is_latent_BK: Tensor | None = None) -> Tensor:
        """Logits [T, B, v] of this rank's part of the padded vocabulary, under teacher forcing."""
        return self.logits(self.hidden_states(decoder_BT, z_BKD, is_latent_BK))

    def predicted_tokens(self, logits_TBv: Tensor) -> Tensor:
        """The most likely token at each target, int64 [B, T]; call it before `log_p_x_given_z`, which may overwrite the logits."""
        best_TB, token_TB = logits_TBv.detach().max(-1)
        group, shards = self.output.tp_group, self.output.tp_group.size()
        if shards > 1:  # gathers the best token of each rank instead of all logits
            own = torch.stack([best_TB.float(), (token_TB + group.rank() * logits_TBv.shape[-1]).float()])
            gathered = [torch.empty_like(own) for _ in range(shards)]
            torch.distributed.all_gather(gathered, own, group=group)
            best_RTB, token_RTB = torch.stack(gathered, 1)
            token_TB = token_RTB.gather(0, best_RTB.argmax(0, keepdim=True))[0].long()
        return token_TB.T

    def log_p_x_given_z(self, logits_TBv: Tensor, target_BT: Tensor, is_target_BT: Tensor) -> Tensor:
        """log p(x|z) of Eq. 9 from logits that are divided among ranks: float32 [B], nats, summed over targets.

        With several ranks, Megatron's cross-entropy works in place and overwrites fp32 logits. With one rank, torch's is used, which
        is faster.
        """
        target_TB = target_BT.T.contiguous()
        if self.output.tp_group.size() == 1:
            nats_TB = F.cross_entropy(logits_TBv.float().flatten(0, 1), target_TB.flatten(), reduction="none").view_as(target_TB)
        else:
            nats_TB = vocab_parallel_cross_entropy(logits_TBv.float(), target_TB)
        return sum_over_targets(-nats_TB.T, is_target_BT)
