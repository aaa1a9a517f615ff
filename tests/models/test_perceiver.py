"""The Perceiver that reads its input once."""

from __future__ import annotations

import torch

from nemo_cmim.config import NetworkConfig
from nemo_cmim.models import Perceiver


def perceiver(latents: int = 3, layers: int = 2) -> Perceiver:
    torch.manual_seed(0)
    return Perceiver(NetworkConfig(hidden_size=8, latents=latents, attention_heads=2, ffn_size=16, dropout=0.0), layers)


def test_does_not_see_the_order_of_the_input() -> None:
    network, x = perceiver(), torch.randn(2, 5, 8)
    assert torch.allclose(network(x), network(x.flip(1)), atol=1e-6)


def test_rows_do_not_depend_on_each_other_and_all_parameters_are_used() -> None:
    for latents in (1, 3):
        network, x = perceiver(latents), torch.randn(4, 5, 8)
        found = network(x)
        assert found.shape == (4, latents, 8) and torch.allclose(found[1:2], network(x[1:2]), atol=1e-6)
        (found * torch.randn_like(found)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())


def test_has_one_cross_attention_and_the_layers_asked_for() -> None:
    assert len(perceiver(layers=4).layers) == 4
    names = {name.split(".")[0] for name, _ in perceiver().named_parameters()}
    assert names == {"latents_KD", "norm_input", "norm_latents", "cross_attention", "norm_ffn", "ffn", "layers", "norm"}
