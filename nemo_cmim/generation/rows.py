"""Decodes each row for itself: greedily, or by drawing tokens. R rows, A rows that are not finished, T positions, V tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tokenizers import Vocabulary
from .settings import DecodingSettings
from .stepper import Stepper

__all__ = ["decode_rows", "drawn_tokens"]

_COLDEST, _HOTTEST = 1e-30, 1e30  # beyond them the probabilities, in float32, no longer change


def decode_rows(
    stepper: Stepper, vocabulary: Vocabulary, rows: int, limit: int, settings: DecodingSettings, uniform_RT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Tokens [R, T], ended by `<EOS>`, and log p(x|z) [R], nats; see `decode.Decoded`.

    Args:
        stepper: The rows.
        vocabulary: Its tokens.
        rows: R.
        limit: Maximum T.
        settings: Temperature, top_k and top_p.
        uniform_RT: Random numbers in [0, 1) for drawing; None: the most likely tokens are taken.
    """
    device = stepper.network.output_bias.device
    written_RT = torch.full((rows, limit), vocabulary.eos_id, dtype=torch.long, device=device)
    log_p_R = torch.zeros(rows, device=device)
    alive_A = torch.arange(rows, device=device)
    ids_A = torch.full((rows,), vocabulary.bos_id, dtype=torch.long, device=device)
    for position in range(limit):
        if not len(alive_A):
            return written_RT[:, :position], log_p_R
        logits_AV = stepper.logits(ids_A)
        restricted_AV = stepper.restrict(logits_AV)
        if uniform_RT is None:
            ids_A = restricted_AV.argmax(-1)
        else:
            ids_A = drawn_tokens(restricted_AV, settings, uniform_RT[alive_A, position])
        log_p_R[alive_A] += logits_AV.log_softmax(-1).gather(1, ids_A[:, None])[:, 0]
        written_RT[alive_A, position] = ids_A
        is_unfinished_A = ids_A != vocabulary.eos_id
        if not is_unfinished_A.all():
            keep = is_unfinished_A.nonzero()[:, 0]
            alive_A, ids_A = alive_A[keep], ids_A[keep]
            stepper.select(keep)
    return written_RT, log_p_R


def drawn_tokens(logits_AV: Tensor, settings: DecodingSettings, uniform_A: Tensor) -> Tensor:
    """One token of each row: the one at which the sum of the sorted probabilities exceeds a uniform random number."""
    assert settings.temperature is not None
    temperature = min(max(float(settings.temperature), _COLDEST), _HOTTEST)
    below_AV = logits_AV - logits_AV.amax(-1, keepdim=True)  # the largest is 0 at any temperature
    sorted_AV, order_AV = (below_AV / temperature).sort(-1, descending=True)
    if settings.top_k is not None:
        sorted_AV[:, settings.top_k :] = -torch.inf
    p_AV = sorted_AV.softmax(-1)
    if settings.top_p is not None:
        p_AV = p_AV.masked_fill(p_AV.cumsum(-1) - p_AV >= settings.top_p, 0.0)  # the token that reaches top_p stays
    sums_AV = p_AV.cumsum(-1)
    index_A1 = torch.searchsorted(sums_AV, uniform_A[:, None] * sums_AV[:, -1:], right=True)
    last_A1 = (p_AV > 0).sum(-1, keepdim=True) - 1  # rounding must not choose a token of probability 0
    return order_AV.gather(1, torch.minimum(index_A1, last_A1))[:, 0]
