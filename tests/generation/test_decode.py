"""Decoding with a cache, compared with its definition without one."""

from __future__ import annotations

import itertools

import pytest
import torch

from nemo_cmim.errors import ConfigError, InvalidShapeError
from nemo_cmim.generation import DecodingSettings, decode
from tests.generation.networks import (
    ALLOWED,
    BOS,
    EOS,
    VOCABULARY,
    beam_by_definition,
    greedy_by_definition,
    latents,
    log_p_next,
    network,
)


def until_eos(row: list[int]) -> list[int]:
    return row[: row.index(EOS) + 1] if EOS in row else row


@pytest.mark.parametrize("count", [1, 3])
def test_greedy_takes_the_most_likely_token_each_time(count: int) -> None:
    net = network(count, end=3.0)
    z = latents(12, net)
    found = decode(net, VOCABULARY, z, settings=DecodingSettings(max_tokens=40))
    expected = [greedy_by_definition(net, one, 40) for one in z]
    assert [until_eos(row) for row in found.ids_BNT[:, 0].tolist()] == [ids for ids, _ in expected]
    torch.testing.assert_close(found.log_p_BN[:, 0], torch.tensor([score for _, score in expected]), rtol=1e-4, atol=1e-4)
    lengths = {len(ids) for ids, _ in expected}
    assert len(lengths) > 2 and min(lengths) < 40  # the case is not trivial


@pytest.mark.parametrize(("count", "width", "n_best", "end"), [(1, 2, 1, 2.0), (3, 4, 4, 1.0), (1, 10, 3, 3.0), (1, 5, 5, -4.0)])
def test_beam_search(count: int, width: int, n_best: int, end: float) -> None:
    net = network(count, end=end)
    z = latents(5, net)
    found = decode(net, VOCABULARY, z, settings=DecodingSettings(beam_size=width, n_best=n_best, max_tokens=12))
    for one, rows, scores in zip(z, found.ids_BNT.tolist(), found.log_p_BN):
        expected = beam_by_definition(net, one, width, n_best, 12)
        assert [until_eos(row) for row in rows] == [ids for ids, _ in expected]
        torch.testing.assert_close(scores, torch.tensor([score for _, score in expected]), rtol=1e-4, atol=1e-4)


def test_a_wide_beam_finds_the_most_likely_of_all_sequences() -> None:
    net = network(end=1.0)
    (z,) = latents(1, net)
    every = []
    for length in range(3):
        for ids in itertools.product(ALLOWED[:-1], repeat=length):
            every.append(sum(float(log_p_next(net, z, [*ids[:i]])[token]) for i, token in enumerate([*ids, EOS])))
    found = decode(net, VOCABULARY, z[None], settings=DecodingSettings(beam_size=10, max_tokens=3))
    assert float(found.log_p_BN) == pytest.approx(max(every), abs=1e-4)


def test_truncated_sequences_come_after_finished_ones() -> None:
    net = network(end=-2.0)
    found = decode(net, VOCABULARY, latents(6, net), settings=DecodingSettings(beam_size=4, n_best=4, max_tokens=5))
    is_finished = (found.ids_BNT == EOS).any(2)
    assert is_finished.any() and not is_finished.all()
    assert (is_finished[:, :-1] | ~is_finished[:, 1:]).all()


@pytest.mark.parametrize("settings", [{}, {"beam_size": 3}, {"temperature": 1.0, "seed": 0}])
def test_special_and_padding_ids_are_never_written(settings: dict[str, float]) -> None:
    net = network(end=-50.0)
    net.output_bias.data[: BOS + 1] = 50.0
    net.output_bias.data[EOS + 1 : 7] = 50.0
    net.output_bias.data[len(VOCABULARY) :] = 50.0  # padding rows of the embedding table
    ids = decode(net, VOCABULARY, latents(4, net), settings=DecodingSettings(max_tokens=12, **settings)).ids_BNT  # type: ignore[arg-type]
    assert ids.shape == (4, 1, 12)
    assert bool(((ids >= 7) & (ids < len(VOCABULARY))).all())


def test_stops_when_all_have_ended() -> None:
    net = network(end=100.0)
    for settings in (DecodingSettings(), DecodingSettings(beam_size=4)):
        ids = decode(net, VOCABULARY, latents(3, net), settings=settings).ids_BNT
        assert (ids == EOS).all()


def test_stops_at_the_models_last_position() -> None:
    net = network(max_positions=9, end=-100.0)
    assert decode(net, VOCABULARY, latents(2, net), settings=DecodingSettings(max_tokens=1000)).ids_BNT.shape == (2, 1, 8)


def test_no_molecules() -> None:
    net = network()
    for settings in (DecodingSettings(), DecodingSettings(beam_size=4, n_best=2)):
        assert decode(net, VOCABULARY, latents(0, net), settings=settings).ids_BNT.shape[:2] == (0, settings.n_best)


def test_wrong_latents_raise() -> None:
    with pytest.raises(InvalidShapeError, match=r"\[B, 1, 32\], found \(2, 32\)"):
        decode(network(), VOCABULARY, torch.zeros(2, 32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 11}, "beam_size must be at most 10, found 11"),
        ({"beam_size": 0}, "beam_size must be"),
        ({"beam_size": 2.0}, "beam_size must be"),
        ({"n_best": 3}, "n_best=3 is more than beam_size=1. Pass beam_size=3, or draw sequences with temperature=1.0"),
        ({"n_best": 11}, "n_best=11 is more than beam_size=1. Draw sequences with temperature=1.0"),
        ({"grammar": "no"}, "grammar must be True or False, found 'no'"),
        ({"top_k": 3}, "top_k=3 has no effect without a temperature"),
        ({"seed": 3}, "seed=3 has no effect without a temperature"),
        ({"temperature": 0}, "temperature must be a number above 0, found 0"),
        ({"temperature": float("nan")}, "temperature must be a number above 0, found nan"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p must be a number above 0 and at most 1, found 1.5"),
        ({"temperature": 1.0, "beam_size": 2}, "Pass one of them"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, found 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingSettings(**settings)  # type: ignore[arg-type]
