"""The PyTorch network: shapes, padding, exactness of optimised attention, and the clamp of the variance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nemo_cmim.config import NetworkConfig
from nemo_cmim.errors import InvalidShapeError
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.models.attention import LatentCrossAttention, SingleKeyAttention, TokenCrossAttention, absorbed_attention
from tests.generation.networks import THIRTY

SMALL = {
    "hidden_size": 32,
    "ffn_size": 64,
    "attention_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_positions": 24,
    "dropout": 0.0,
    "init_std": 0.2,
    "vocabulary_size": 30,
    "vocabulary_multiple": 8,
}


def network(latents: int = 1, **changes: object) -> CMIMNetwork:
    torch.manual_seed(0)
    return CMIMNetwork(NetworkConfig(**(SMALL | {"latents": latents} | changes)))


def tokens(*lengths: int, pad_to: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    size = pad_to or max(lengths)
    is_token = torch.arange(size) < torch.tensor(lengths)[:, None]
    rows = torch.stack([torch.randint(6, 30, (64,), generator=g)[:size] for _ in lengths])
    return rows * is_token, is_token


@pytest.mark.parametrize("latents", [1, 3])
def test_encoding_does_not_depend_on_padding_or_other_molecules(latents: int) -> None:
    net = network(latents).eval()
    ids, is_token = tokens(7, 20, 3)
    together = net.encode(ids, is_token)
    for i, length in enumerate((7, 20, 3)):
        alone = net.encode(ids[i : i + 1, :length], is_token[i : i + 1, :length])
        for a, b in zip(alone[:2], together[:2]):
            torch.testing.assert_close(a[0], b[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("latents", [1, 3])
def test_hidden_states_do_not_depend_on_later_tokens(latents: int) -> None:
    net = network(latents).eval()
    ids, _ = tokens(12, 12)
    z = torch.randn(2, latents, 32, generator=torch.Generator().manual_seed(2))
    full, start = net.hidden_states(ids, z), net.hidden_states(ids[:, :5], z)
    torch.testing.assert_close(full[:, :5], start, rtol=1e-5, atol=1e-5)
    changed = ids.clone()
    changed[:, 7] = 6
    torch.testing.assert_close(net.hidden_states(changed, z)[:, :7], full[:, :7], rtol=1e-5, atol=1e-5)


def test_latents_reach_every_position() -> None:
    net = network().eval()
    ids, _ = tokens(9)
    z = torch.zeros(1, 1, 32)
    difference = (net.hidden_states(ids, z) - net.hidden_states(ids, z + 1)).abs().amax(-1)
    assert (difference > 1e-3).all()


def test_single_key_attention_is_attention_to_one_key() -> None:
    """With K = 1 the softmax is 1 for all queries and keys."""
    config = NetworkConfig(**SMALL)
    torch.manual_seed(0)
    single, general = SingleKeyAttention(config), LatentCrossAttention(config)
    with torch.no_grad():
        general.kv.weight[32:], general.kv.bias[32:] = single.value.weight, single.value.bias
        general.out.load_state_dict(single.out.state_dict())
    x, z = torch.randn(3, 7, 32), torch.randn(3, 1, 32)
    torch.testing.assert_close(single(z).expand(3, 7, 32), general(x, general.project(z)), rtol=1e-5, atol=1e-6)


def test_absorbed_attention_equals_attention() -> None:
    torch.manual_seed(0)
    B, H, Q, d, S, D = 3, 4, 2, 8, 11, 32
    query, memory = torch.randn(B, H, Q, d), torch.randn(B, S, D)
    w_key, w_value = torch.randn(H, d, D) / 6, torch.randn(H, d, D) / 6
    is_key = torch.arange(S) < torch.tensor([11, 4, 1])[:, None]
    key, value = (torch.einsum("bsm,hdm->bhsd", memory, w) for w in (w_key, w_value))
    expected = F.scaled_dot_product_attention(query, key, value, is_key[:, None, None, :]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(absorbed_attention(query, memory, w_key, w_value, is_key), expected, rtol=1e-4, atol=1e-5)


def test_token_cross_attention_equals_the_unabsorbed_form_with_biases() -> None:
    torch.manual_seed(0)
    attention = TokenCrossAttention(NetworkConfig(**SMALL))
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, memory, is_token = torch.randn(2, 3, 32), torch.randn(2, 6, 32), torch.arange(6) < torch.tensor([6, 2])[:, None]
    query, key, value = (
        part.unflatten(-1, (4, 8)).transpose(1, 2) for part in (attention.q(x), *attention.kv(memory).chunk(2, -1))
    )
    expected = F.scaled_dot_product_attention(query, key, value, is_token[:, None, None, :]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x, memory, is_token), attention.out(expected), rtol=1e-4, atol=1e-5)


def test_variance_is_clamped_from_below() -> None:
    net = network()
    torch.nn.init.constant_(net.posterior.log_variance.bias, -100.0)
    posterior = net.encode(*tokens(5, 3))
    assert (posterior.variance_BKD == 1e-6).all()
    assert posterior.sample().isfinite().all()


def test_extreme_half_precision_activations_keep_the_posterior_finite() -> None:
    head = network().half().posterior
    with torch.no_grad():
        head.log_variance.weight.zero_()
        head.log_variance.bias.fill_(20.0)  # exp(20) is beyond fp16
    posterior = head(torch.zeros(1, 1, 32, dtype=torch.float16))
    assert posterior.variance_BKD.dtype == torch.float32
    assert posterior.variance_BKD.isfinite().all()


def test_too_many_tokens_raise() -> None:
    ids = torch.zeros(1, 25, dtype=torch.long)
    with pytest.raises(InvalidShapeError, match="25 tokens, but this model has 24 positions"):
        network().encode(ids, ids == 0)


def test_padded_vocabulary_and_parameter_count_of_the_paper_size() -> None:
    config = NetworkConfig()
    assert config.padded_vocabulary_size == 640
    with torch.device("meta"):
        one, four = CMIMNetwork(config), CMIMNetwork(NetworkConfig(latents=4))
    assert sum(p.numel() for p in one.parameters()) == 61_020_288
    assert sum(p.numel() for p in four.parameters()) == 70_483_584


@pytest.mark.parametrize("latents", [1, 3])
def test_every_parameter_gets_a_gradient(latents: int) -> None:
    net = network(latents)
    ids, is_token = tokens(9, 6, 4)
    posterior = net.encode(ids, is_token)
    (net(ids, posterior.sample()).square().sum() + posterior.variance_BKD.sum()).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_overfits_sixteen_molecules() -> None:
    """Training with the complete objective memorises a small set in the latents: reconstruction is exact."""
    from nemo_cmim.config import ObjectiveConfig
    from nemo_cmim.generation import DecodingSettings, decode
    from nemo_cmim.losses import build_objective, log_p_x_given_z

    net = network(init_std=0.05)
    g = torch.Generator().manual_seed(3)
    ids = torch.randint(6, 30, (16, 10), generator=g)
    decoder = torch.cat([torch.full((16, 1), 2), ids], 1)
    target = torch.cat([ids, torch.full((16, 1), 3)], 1)
    every = torch.ones_like(target, dtype=torch.bool)
    objective = build_objective(ObjectiveConfig())
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1, 2 * (1 - step / 350)))
    torch.manual_seed(0)
    for _ in range(350):
        posterior = net.encode(ids, every[:, 1:])
        z = posterior.sample()
        loss = objective(log_p_x_given_z(net(decoder, z), target, every), z, posterior).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    mean = net.encode(ids, every[:, 1:]).mean_BKD
    decoded = decode(net, THIRTY, mean, settings=DecodingSettings(max_tokens=15)).ids_BNT[:, 0]
    assert torch.equal(decoded[:, :10], ids)
    assert (decoded[:, 10:] == 3).all()
