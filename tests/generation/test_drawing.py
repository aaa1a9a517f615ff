"""Drawing tokens: frequencies, restrictions, and reproducible draws."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nemo_cmim.generation import DecodingSettings, decode
from nemo_cmim.generation.rows import drawn_tokens
from tests.generation.networks import ALLOWED, EOS, VOCABULARY, latents, log_p_next, network

DRAWS = 20_000


def first_tokens(**settings: float) -> tuple[torch.Tensor, Counter[int]]:
    """log p of the first token by the model, and how often each was drawn."""
    net = network(end=1.0)
    z = latents(1, net)
    found = decode(net, VOCABULARY, z, settings=DecodingSettings(n_best=DRAWS, max_tokens=1, seed=3, **settings))  # type: ignore[arg-type]
    return log_p_next(net, z[0], []), Counter(found.ids_BNT[0, :, 0].tolist())


def expected_shares(log_p: torch.Tensor, temperature: float, top_k: int | None = None, top_p: float = 1.0) -> dict[int, float]:
    p = torch.full_like(log_p, -torch.inf)
    p[ALLOWED] = log_p[ALLOWED] / temperature
    if top_k:
        p[p < p.sort(descending=True).values[top_k - 1]] = -torch.inf
    p = p.softmax(-1)
    shares: dict[int, float] = {}
    for token in p.argsort(descending=True).tolist():
        if sum(shares.values()) < top_p and p[token] > 0:
            shares[token] = float(p[token])
    total = sum(shares.values())
    return {token: share / total for token, share in shares.items()}


@pytest.mark.parametrize(
    "settings", [{"temperature": 1.0}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 4}, {"temperature": 1.5, "top_p": 0.7}]
)
def test_tokens_are_drawn_with_their_probabilities(settings: dict[str, float]) -> None:
    log_p, counts = first_tokens(**settings)
    expected = expected_shares(log_p, **settings)  # type: ignore[arg-type]
    assert set(counts) <= set(expected)
    for token, share in expected.items():
        deviation = (share * (1 - share) / DRAWS) ** 0.5
        assert abs(counts[token] / DRAWS - share) < 5 * deviation + 1e-4, token


def test_top_k_of_one_is_greedy() -> None:
    net = network(end=2.0)
    z = latents(6, net)
    drawn = decode(net, VOCABULARY, z, settings=DecodingSettings(temperature=3.0, top_k=1, n_best=2))
    greedy = decode(net, VOCABULARY, z)
    for n in range(2):
        assert torch.equal(drawn.ids_BNT[:, n], greedy.ids_BNT[:, 0])
        torch.testing.assert_close(drawn.log_p_BN[:, n], greedy.log_p_BN[:, 0])  # that of the model, not of temperature 3


def test_a_seed_repeats_the_draws() -> None:
    net = network(end=1.0)
    z = latents(4, net)
    settings = DecodingSettings(temperature=1.0, n_best=3, seed=5)
    one, two = (decode(net, VOCABULARY, z, settings=settings) for _ in range(2))
    assert torch.equal(one.ids_BNT, two.ids_BNT)
    other = decode(net, VOCABULARY, z, settings=DecodingSettings(temperature=1.0, n_best=3, seed=6))
    assert not torch.equal(one.ids_BNT[..., 0], other.ids_BNT[..., 0])


def test_draws_do_not_depend_on_the_batch() -> None:
    net = network(end=1.0)
    z = latents(4, net)
    settings = DecodingSettings(temperature=1.0, n_best=2, seed=5, max_tokens=10)
    together = decode(net, VOCABULARY, z, settings=settings).ids_BNT
    for row in range(4):
        alone = decode(net, VOCABULARY, z[row : row + 1], settings=settings, numbers=[row]).ids_BNT
        assert [list(filter(EOS.__ne__, ids)) for ids in alone[0].tolist()] == [
            list(filter(EOS.__ne__, ids)) for ids in together[row].tolist()
        ]


def test_a_draw_of_almost_one_takes_a_possible_token() -> None:
    logits = torch.tensor([[3.0, -torch.inf, 1.0, 2.0, -torch.inf]]).repeat(100, 1)
    for settings in (
        DecodingSettings(temperature=0.2),
        DecodingSettings(temperature=1.0, top_p=0.9),
        DecodingSettings(temperature=1.0, top_k=2),
    ):
        drawn = drawn_tokens(logits, settings, torch.full((100,), 1 - 2**-24))
        assert set(drawn.tolist()) <= {0, 2, 3}


def test_extreme_temperatures_are_greedy_or_uniform() -> None:
    logits = torch.tensor([[-3.0, 900.0, -torch.inf, 899.0]]).repeat(6, 1)
    uniform = torch.arange(6) / 6
    for cold in (5e-324, 1e-300, 1e-30):
        assert drawn_tokens(logits, DecodingSettings(temperature=cold), uniform).tolist() == [1] * 6
    for hot in (1e30, 1e300):
        assert Counter(drawn_tokens(logits, DecodingSettings(temperature=hot), uniform).tolist()) == {0: 2, 1: 2, 3: 2}
