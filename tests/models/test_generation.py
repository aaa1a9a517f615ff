"""Greedy decoding with a cache, compared with its definition without a cache."""

from __future__ import annotations

import pytest
import torch

from nemo_cmim.config import NetworkConfig
from nemo_cmim.errors import InvalidShapeError
from nemo_cmim.models import CMIMNetwork, greedy_decode

BOS, EOS = 2, 3
ALLOWED = torch.arange(30) > 5


def network(latents: int, max_positions: int = 48) -> CMIMNetwork:
    torch.manual_seed(0)
    return CMIMNetwork(
        NetworkConfig(
            hidden_size=32,
            ffn_size=64,
            attention_heads=4,
            encoder_layers=1,
            decoder_layers=2,
            latents=latents,
            dropout=0.0,
            max_positions=max_positions,
            init_std=0.4,
            vocabulary_size=30,
            vocabulary_multiple=8,
        )
    ).eval()


def naive(net: CMIMNetwork, z: torch.Tensor, limit: int) -> list[list[int]]:
    rows = []
    for molecule in z:
        ids: list[int] = []
        for _ in range(limit):
            logits = net(torch.tensor([[BOS, *ids]]), molecule[None])[0, -1].detach()
            allowed = [i for i in range(30) if i > 5 or i == EOS]
            best = max(allowed, key=lambda i: float(logits[i]))
            if best == EOS:
                break
            ids.append(best)
        rows.append(ids)
    return rows


def until_eos(row: list[int]) -> list[int]:
    return row[: row.index(EOS)] if EOS in row else row


@pytest.mark.parametrize("latents", [1, 3])
def test_equals_decoding_without_a_cache(latents: int) -> None:
    net = network(latents)
    z = torch.randn(12, latents, 32, generator=torch.Generator().manual_seed(1)) * 3
    net.output_bias.data[EOS] = 3.0  # so that molecules end at different places
    out = greedy_decode(net, z, bos_id=BOS, eos_id=EOS, is_allowed_V=ALLOWED, max_tokens=40)
    expected = naive(net, z, 40)
    assert [until_eos(row) for row in out.tolist()] == expected
    lengths = set(map(len, expected))
    assert len(lengths) > 2 and min(lengths) < 40  # the case is not trivial


def test_special_and_padding_ids_are_never_written() -> None:
    net = network(1)
    net.output_bias.data[:6] = 50.0
    net.output_bias.data[30:] = 50.0  # padding rows of the embedding table
    net.output_bias.data[EOS] = -50.0
    z = torch.randn(4, 1, 32, generator=torch.Generator().manual_seed(1))
    out = greedy_decode(net, z, bos_id=BOS, eos_id=EOS, is_allowed_V=ALLOWED, max_tokens=12)
    assert out.shape == (4, 12)
    assert bool(((out > 5) & (out < 30)).all())


def test_stops_when_all_have_ended() -> None:
    net = network(1)
    net.output_bias.data[EOS] = 100.0
    out = greedy_decode(net, torch.zeros(3, 1, 32), bos_id=BOS, eos_id=EOS, is_allowed_V=ALLOWED)
    assert out.shape[1] <= 2
    assert (out == EOS).all()


def test_stops_at_the_models_last_position() -> None:
    net = network(1, max_positions=9)
    net.output_bias.data[EOS] = -100.0
    out = greedy_decode(net, torch.zeros(2, 1, 32), bos_id=BOS, eos_id=EOS, is_allowed_V=ALLOWED, max_tokens=1000)
    assert out.shape == (2, 8)


def test_wrong_latents_raise() -> None:
    with pytest.raises(InvalidShapeError, match=r"\[B, 1, 32\], found \(2, 32\)"):
        greedy_decode(network(1), torch.zeros(2, 32), bos_id=BOS, eos_id=EOS, is_allowed_V=ALLOWED)
