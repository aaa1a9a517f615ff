"""Small random networks, and decoding by definition: without a cache, one molecule and one sequence at a time."""

from __future__ import annotations

import torch

from nemo_cmim.config import NetworkConfig
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import Vocabulary

SPECIAL = ("<PAD>", "?", "^", "&", "<MASK>", "<SEP>")
CHEMICAL = ("C", "c", "N", "O", "[nH]", "Cl", "(", ")", "=", "#", "1", "2", "%12", ".", "/", "<")
VOCABULARY = Vocabulary((*SPECIAL, "unused one", *CHEMICAL))
BOS, EOS = VOCABULARY.bos_id, VOCABULARY.eos_id
THIRTY = Vocabulary((*SPECIAL, *(f"[{isotope}C]" for isotope in range(1, 25))))  # all but the special ones can be written
ALLOWED = [*range(7, len(VOCABULARY)), EOS]


def network(latents: int = 1, max_positions: int = 48, end: float = 0.0) -> CMIMNetwork:
    torch.manual_seed(0)
    made = CMIMNetwork(
        NetworkConfig(
            hidden_size=32, ffn_size=64, attention_heads=4, encoder_layers=1, decoder_layers=2, latents=latents, dropout=0.0,
            max_positions=max_positions, init_std=0.4, vocabulary_size=len(VOCABULARY), vocabulary_multiple=8,
        )
    ).eval()  # fmt: skip
    made.output_bias.data[EOS] = end
    return made.requires_grad_(False)


def latents(count: int, of: CMIMNetwork, seed: int = 1) -> torch.Tensor:
    shape = (count, of.config.latents, of.config.hidden_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def log_p_next(net: CMIMNetwork, z_KD: torch.Tensor, ids: list[int]) -> torch.Tensor:
    return net(torch.tensor([[BOS, *ids]]), z_KD[None])[0, -1].log_softmax(-1)


def greedy_by_definition(net: CMIMNetwork, z_KD: torch.Tensor, limit: int) -> tuple[list[int], float]:
    ids: list[int] = []
    score = 0.0
    while len(ids) < limit and EOS not in ids:
        log_p = log_p_next(net, z_KD, ids)
        best = max(ALLOWED, key=lambda token: float(log_p[token]))
        ids, score = [*ids, best], score + float(log_p[best])
    return ids, score


def beam_by_definition(net: CMIMNetwork, z_KD: torch.Tensor, width: int, n_best: int, limit: int) -> list[tuple[list[int], float]]:
    """All extensions of the `width` best unfinished sequences, sorted, at each position."""
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float]] = []
    for _ in range(limit):
        extended = []
        for ids, score in alive:
            log_p = log_p_next(net, z_KD, ids)
            extended += [([*ids, token], score + float(log_p[token])) for token in ALLOWED]
        extended = sorted(extended, key=lambda pair: -pair[1])[: 2 * width]
        ended = sorted(ended + [pair for pair in extended if pair[0][-1] == EOS], key=lambda pair: -pair[1])[:n_best]
        alive = [pair for pair in extended if pair[0][-1] != EOS][:width]
        if not alive or (len(ended) == n_best and alive[0][1] <= ended[-1][1]):
            return ended
    return (ended + alive)[:n_best]
