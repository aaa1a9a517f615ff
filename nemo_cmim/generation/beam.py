"""Beam search: the most likely sequences that a search of limited width finds.

B molecules, A molecules that are not finished, W sequences of a beam, C = 2 W candidates, N sequences that are returned, T positions,
V tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tokenizers import Vocabulary
from .stepper import Stepper

__all__ = ["beam_search"]


def beam_search(stepper: Stepper, vocabulary: Vocabulary, width: int, n_best: int, limit: int) -> tuple[Tensor, Tensor]:
    """The `n_best` sequences of each molecule with the highest log p(x|z) among those found, the best first.

    A molecule is finished when no sequence of its beam can still become one of them: log p only falls as a sequence grows. Scores are not
    divided by the length.

    Args:
        stepper: B * W rows; those of a molecule are neighbours and equal.
        vocabulary: Its tokens.
        width: W.
        n_best: N, at most W.
        limit: Maximum T. Unfinished sequences of this length are returned as well, after finished ones.

    Returns:
        int64 [B, N, T], ended by `<EOS>`, and log p(x|z) [B, N], nats; -inf if there are fewer than N sequences.
    """
    device, eos = stepper.network.output_bias.device, vocabulary.eos_id
    molecules = len(stepper.memory[0][0] if isinstance(stepper.memory[0], tuple) else stepper.memory[0]) // width
    best_BNT = torch.full((molecules, n_best, limit), eos, device=device)
    score_BN = torch.full((molecules, n_best), -torch.inf, device=device)
    alive_A = torch.arange(molecules, device=device)
    score_AW = torch.full((molecules, width), -torch.inf, device=device)
    score_AW[:, 0] = 0.0  # all rows are equal at first
    text_AWT = torch.full((molecules, width, limit), eos, device=device)
    ids_R = torch.full((molecules * width,), vocabulary.bos_id, device=device)
    for position in range(limit):
        if not len(alive_A):
            break
        log_p_RV = stepper.restrict(stepper.logits(ids_R).log_softmax(-1))
        total_AWV = score_AW[:, :, None] + log_p_RV.view(len(alive_A), width, -1)
        score_AC, index_AC = total_AWV.flatten(1).topk(2 * width)  # so many that W of them do not end
        from_AC, token_AC = index_AC // total_AWV.shape[2], index_AC % total_AWV.shape[2]
        text_ACT = text_AWT.gather(1, from_AC[:, :, None].expand(-1, -1, limit)).clone()
        text_ACT[:, :, position] = token_AC
        ends_AC = token_AC == eos
        best_BNT[alive_A], score_BN[alive_A] = _best(
            (best_BNT[alive_A], text_ACT), (score_BN[alive_A], score_AC.masked_fill(~ends_AC, -torch.inf)), n_best
        )
        score_AW, chosen_AW = score_AC.masked_fill(ends_AC, -torch.inf).topk(width)
        can_improve_A = (score_AW[:, 0] > score_BN[alive_A, -1]) & score_AW[:, 0].isfinite()
        order_AW = _in_place(from_AC.gather(1, chosen_AW))
        chosen_AW, score_AW = chosen_AW.gather(1, order_AW), score_AW.gather(1, order_AW)
        text_AWT = text_ACT.gather(1, chosen_AW[:, :, None].expand(-1, -1, limit))
        ids_AW = token_AC.gather(1, chosen_AW)
        first_A1 = torch.arange(len(alive_A), device=device)[:, None] * width
        source_R = (first_A1 + from_AC.gather(1, chosen_AW)).flatten()
        moved = (source_R != torch.arange(len(source_R), device=device)).nonzero()[:, 0]
        stepper.copy(source_R[moved], moved)
        if not can_improve_A.all():
            keep = can_improve_A.nonzero()[:, 0]
            alive_A, score_AW, text_AWT, ids_AW = alive_A[keep], score_AW[keep], text_AWT[keep], ids_AW[keep]
            stepper.select((keep[:, None] * width + torch.arange(width, device=device)).flatten())
        ids_R = ids_AW.flatten()
    score_AW, order_AW = score_AW.sort(1, descending=True)
    text_AWT = text_AWT.gather(1, order_AW[:, :, None].expand(-1, -1, limit))
    slot_N = torch.arange(n_best, device=device)  # truncated sequences come after all finished ones, whatever their scores
    finished_A1 = score_BN[alive_A].isfinite().sum(1, keepdim=True)
    order_AN = torch.where(slot_N < finished_A1, slot_N, n_best + slot_N - finished_A1)
    score_AN = torch.cat([score_BN[alive_A], score_AW], 1).gather(1, order_AN)
    text_ANT = torch.cat([best_BNT[alive_A], text_AWT], 1).gather(1, order_AN[:, :, None].expand(-1, -1, limit))
    best_BNT[alive_A], score_BN[alive_A] = text_ANT, score_AN
    return best_BNT.masked_fill((score_BN == -torch.inf)[:, :, None], eos), score_BN


def _in_place(from_AW: Tensor) -> Tensor:
    """An order of W sequences that moves few of them: the first one that continues a sequence takes its place, the others free places.

    Args:
        from_AW: The place of the sequence that each one continues.

    Returns:
        int64 [A, W], the index of the sequence for each place.
    """
    width = from_AW.shape[1]
    repeats_AWW = (from_AW[:, :, None] == from_AW[:, None, :]).tril(-1)
    is_first_AW = ~repeats_AWW.any(2)
    is_taken_AW = torch.zeros_like(is_first_AW).scatter(1, from_AW, torch.ones_like(is_first_AW))
    free_AW = is_taken_AW.long().argsort(dim=1, stable=True)  # free places first
    number_AW = ((~is_first_AW).cumsum(1) - 1).clamp(min=0)  # of a sequence among those that need a free place
    place_AW = torch.where(is_first_AW, from_AW, free_AW.gather(1, number_AW))
    return torch.empty_like(place_AW).scatter(1, place_AW, torch.arange(width, device=from_AW.device).expand_as(place_AW))


def _best(texts: tuple[Tensor, Tensor], scores: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """The best of two lists of sequences of each molecule."""
    score, order = torch.cat(scores, 1).topk(count)
    every = torch.cat(texts, 1)
    return every.gather(1, order[:, :, None].expand(-1, -1, every.shape[2])), score
