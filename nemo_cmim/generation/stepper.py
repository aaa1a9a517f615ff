"""Incremental decoding of rows that can be dropped, repeated and reordered. R rows, V tokens, D width."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InvalidShapeError
from ..models import CMIMNetwork
from ..models.layers import Memory, select
from .grammar import SmilesGrammar, SmilesState

__all__ = ["BEFORE_TOKEN", "Stepper", "check_latents"]

BEFORE_TOKEN: ContextVar[Callable[[], None] | None] = ContextVar("BEFORE_TOKEN", default=None)
"""Called, if it is set, before each token of a batch. A service computes other requests meanwhile, or raises an error to stop decoding.

It is a context variable, so that each thread has its own, and functions that decode do not have to pass it on.
"""

_GROWTH = 32  # positions by which the caches grow


def check_latents(network: CMIMNetwork, z_BKD: Tensor) -> None:
    """Checks the shape of latents.

    Raises:
        InvalidShapeError: If `z_BKD` does not match the network.
    """
    config = network.config
    latents = config.latents if config.has_bottleneck else "any number"
    if z_BKD.dim() != 3 or z_BKD.shape[2] != config.hidden_size or (config.has_bottleneck and z_BKD.shape[1] != latents):
        raise InvalidShapeError(f"Latents must have the shape [B, {latents}, {config.hidden_size}], found {tuple(z_BKD.shape)}.")


class Stepper:
    """The unfinished sequences of R rows: latents, caches of keys and values, and what the grammar allows next.

    Args:
        network: The decoder, in eval mode.
        memory: Result of `network.remember` for R rows.
        rows: R.
        is_allowed_V: bool [padded vocabulary], True for ids that may be written, `<EOS>` among them.
        grammar: Restricts each row further; None: not.
    """

    def __init__(
        self, network: CMIMNetwork, memory: list[Memory], rows: int, is_allowed_V: Tensor, grammar: SmilesGrammar | None = None
    ) -> None:
        self.network, self.memory = network, memory
        self.position = 0
        self._forbidden_V = ~is_allowed_V
        self._state: SmilesState | None = grammar.start(rows) if grammar else None
        config, like = network.config, network.output_bias
        shape = (rows, config.attention_heads, _GROWTH, config.head_size)
        self._caches = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in network.decoder]

    def logits(self, ids_R: Tensor) -> Tensor:
        """Appends a token to each row and returns the logits of the next one, float32 [R, V], not yet restricted.

        Args:
            ids_R: The tokens; first `<BOS>`.
        """
        before_token = BEFORE_TOKEN.get()
        if before_token is not None:
            before_token()
        if self.position == self._caches[0][0].shape[2]:
            room = (0, 0, 0, _GROWTH)
            self._caches = [(F.pad(key, room), F.pad(value, room)) for key, value in self._caches]
        if self._state and self.position:
            self._state.append(ids_R)
        logits_RV = self.network.step(ids_R, self.memory, self._caches, self.position).float()
        self.position += 1
        return logits_RV

    def restrict(self, scores_RV: Tensor) -> Tensor:
        """Scores with -inf at tokens that may not be written next."""
        scores_RV = scores_RV.masked_fill(self._forbidden_V, -torch.inf)
        return scores_RV if self._state is None else scores_RV.masked_fill(~self._state.is_allowed(), -torch.inf)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Rows `targets` continue the sequences of rows `sources`, which have the same latents. No row may be in both."""
        for cache in self._caches:
            for part in cache:
                part[targets, :, : self.position] = part[sources, :, : self.position]
        if self._state:
            self._state.copy(sources, targets)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order."""
        self.memory = select(self.memory, rows)
        self._caches = [(key[rows], value[rows]) for key, value in self._caches]
        if self._state:
            self._state.select(rows)
