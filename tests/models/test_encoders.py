"""Encoders other than the Perceiver, deterministic latents, and networks without a decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nemo_cmim.config import NetworkConfig
from nemo_cmim.errors import ConfigError, InvalidShapeError
from nemo_cmim.generation import DecodingSettings, decode
from nemo_cmim.models import CMIMNetwork
from tests.generation.networks import THIRTY

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "ffn_size": 64,
    "attention_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_positions": 40,
    "dropout": 0.0,
    "init_std": 0.3,
    "vocabulary_size": 30,
    "vocabulary_multiple": 8,
}
KINDS: dict[str, dict[str, Any]] = {
    "transformer": {"encoder": "transformer", "posterior": "point"},
    "hybrid": {"encoder": "hybrid", "latents": 3},
    "point": {"posterior": "point"},
}
BOS, EOS = 2, 3


def network(kind: str, **changes: Any) -> CMIMNetwork:
    torch.manual_seed(0)
    return CMIMNetwork(NetworkConfig(**(SIZES | KINDS[kind] | changes))).eval()


def tokens(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    is_token = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(6, 30, is_token.shape, generator=torch.Generator().manual_seed(1)) * is_token, is_token


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_other_molecules_have_no_effect(kind: str) -> None:
    """In the latents, in the pooled vector, and in the decoder that attends to them."""
    net = network(kind)
    ids, is_token = tokens(7, 20, 3)
    with torch.no_grad():
        together = net.encode(ids, is_token)
        hidden = net.hidden_states(ids, together.mean_BKD, together.is_latent_BK)
        for i, length in enumerate((7, 20, 3)):
            alone = net.encode(ids[i : i + 1, :length], is_token[i : i + 1, :length])
            torch.testing.assert_close(alone.pooled()[0], together.pooled()[i], rtol=1e-4, atol=1e-5)
            latents = alone.mean_BKD.shape[1]
            torch.testing.assert_close(alone.mean_BKD[0], together.mean_BKD[i, :latents], rtol=1e-4, atol=1e-5)
            states = net.hidden_states(ids[i : i + 1, :length], alone.mean_BKD, alone.is_latent_BK)
            torch.testing.assert_close(states[0], hidden[i, :length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "hybrid"])
def test_tokens_attend_to_each_other_before_the_bottleneck(kind: str) -> None:
    """A change at the end of the sequence changes the state at its start."""
    net = network(kind)
    ids, is_token = tokens(8)
    embedded = net.embedding(ids)
    changed = embedded.clone()
    changed[:, 7] = embedded[:, 6]
    layer_out = [net.encoder.layers[0](x, is_token)[:, 0] for x in (embedded, changed)]  # type: ignore[operator, index, union-attr]
    assert (layer_out[0] - layer_out[1]).abs().max() > 1e-3


def test_shapes_of_the_posterior() -> None:
    ids, is_token = tokens(5, 9)
    full, hybrid, point = (network(kind).encode(ids, is_token) for kind in KINDS)
    assert full.mean_BKD.shape == (2, 9, 32) and full.is_latent_BK is is_token and full.pooled().shape == (2, 32)
    assert hybrid.mean_BKD.shape == (2, 3, 32) and hybrid.pooled().shape == (2, 96) and hybrid.is_latent_BK is None
    assert not point.variance_BKD.any() and torch.equal(point.sample(), point.mean_BKD)


def test_the_pooled_vector_without_bottleneck_is_the_masked_mean() -> None:
    ids, is_token = tokens(5, 9)
    posterior = network("transformer").encode(ids, is_token)
    for i, length in enumerate((5, 9)):
        torch.testing.assert_close(posterior.pooled()[i], posterior.mean_BKD[i, :length].mean(0))


def test_decoding_with_and_without_cache_are_equal_for_a_transformer_encoder() -> None:
    net = network("transformer")
    net.output_bias.data[EOS] = 2.0
    ids, is_token = tokens(12, 4, 9, 17, 1)
    posterior = net.encode(ids, is_token)
    settings = DecodingSettings(max_tokens=25)
    written = decode(net, THIRTY, posterior.mean_BKD, posterior.is_latent_BK, settings).ids_BNT[:, 0]
    for i, length in enumerate((12, 4, 9, 17, 1)):
        row: list[int] = []
        while len(row) < written.shape[1]:
            logits = net(torch.tensor([[BOS, *row]]), posterior.mean_BKD[i : i + 1, :length])[0, -1]
            logits[:6] = logits[:6].where(torch.arange(6) == EOS, -torch.inf)
            row.append(int(logits[:30].argmax()))
            if row[-1] == EOS:
                break
        found = written[i].tolist()
        assert found[: len(row)] == row and set(found[len(row) :]) <= {EOS}


def test_networks_without_decoder_have_no_decoder_weights_and_raise() -> None:
    net = network("point", decoder_layers=0)
    assert not [name for name in net.state_dict() if name.startswith(("decoder", "output"))]
    ids, is_token = tokens(4)
    posterior = net.encode(ids, is_token)
    with pytest.raises(ConfigError, match="no decoder"):
        net(ids, posterior.mean_BKD)


def test_latents_of_another_width_raise() -> None:
    with pytest.raises(InvalidShapeError, match=r"\[B, any number, 32\]"):
        decode(network("transformer"), THIRTY, torch.zeros(2, 5, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "perceivr"}, "network.encoder must be perceiver | transformer | hybrid, found 'perceivr'"),
        ({"posterior": "gauss"}, "network.posterior must be gaussian | point, found 'gauss'"),
        ({"encoder": "transformer"}, "network.posterior=gaussian is not supported"),
        ({"encoder": "transformer", "posterior": "point", "latents": 4}, "network.latents=4 has no effect"),
        ({"decoder_layers": -1}, "network.decoder_layers must be at least 0"),
    ],
)
def test_impossible_networks_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        NetworkConfig(**changes)
    assert message in str(error.value)
