"""Low-rank adapters, and which parameters each scope trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.properties.fine_tuning.adapters import LowRank, add_adapters, merge_adapters
from nemo_cmim.properties.fine_tuning.head import Outputs
from nemo_cmim.properties.fine_tuning.member import Member
from nemo_cmim.properties.fine_tuning.recipe import Recipe
from nemo_cmim.properties.fine_tuning.states import states
from tests.inference.conftest import random_model

ONE_VALUE = Outputs("regression", (1,))
TOKENS = [[20, 21, 22], [23, 20]]


def gradients(model: CMIMModel, recipe: Recipe) -> dict[str, float]:
    """The largest gradient in each tensor of the network that a step would change."""
    member = Member.new(model, recipe, ONE_VALUE)
    x_BD = states(member.network, model.tokenizer.vocabulary, TOKENS, member.spec)
    (x_BD * torch.randn_like(x_BD)).sum().backward()
    found = {name: parameter.grad for name, parameter in member.network.named_parameters()}
    return {name: float(gradient.abs().max()) for name, gradient in found.items() if gradient is not None}


def test_states_are_those_of_embed(model: CMIMModel) -> None:
    smiles = ["CCO", "c1ccccc1C(=O)O", "C"]
    tokens = [model.tokenizer.encode(one) for one in smiles]
    for kind in ("informative", "mean"):
        member = Member.new(model, Recipe(kind=kind, dropout=0), ONE_VALUE)
        found = states(member.network, model.tokenizer.vocabulary, tokens, member.spec).detach().numpy()
        np.testing.assert_allclose(found, model.embed(smiles, kind, canonical=False), rtol=1e-4, atol=1e-5)


def test_the_gradient_reaches_encoder_and_decoder(model: CMIMModel) -> None:
    found = gradients(model, Recipe())
    parts = ("embedding.token", "encoder.read.0", "encoder.think.1", "posterior.mean", "decoder.0", "decoder.1", "decoder_norm")
    for part in parts:
        assert any(size > 0 for name, size in found.items() if name.startswith(part)), part
    assert not any(name.startswith(("posterior.log_variance", "output_bias", "heads")) for name in found)
    assert not any(name.startswith("decoder") for name in gradients(model, Recipe(kind="mean")))


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("informative", ("decoder.1.", "decoder_norm.")),
        ("mean", ("encoder.read.1.", "encoder.think.1.", "encoder.norm.", "posterior.mean.")),
    ],
)
def test_last_layers_are_the_only_ones_with_a_gradient(model: CMIMModel, kind: str, allowed: tuple[str, ...]) -> None:
    found = gradients(model, Recipe(scope="last:1", kind=kind))
    assert all(name.startswith(allowed) for name in found)
    assert {next(part for part in allowed if name.startswith(part)) for name in found} == set(allowed)


@pytest.mark.parametrize("encoder", ["transformer", "hybrid"])
def test_other_encoders_have_last_layers_too(encoder: str) -> None:
    file = random_model(encoder=encoder, posterior="point")
    found = gradients(CMIMModel(file, "cpu"), Recipe(scope="last:1", kind="mean"))
    assert "encoder.layers.0.ffn.up.weight" not in found
    assert "encoder.layers.1.ffn.up.weight" in found


def test_more_layers_than_there_are_is_an_error(model: CMIMModel) -> None:
    with pytest.raises(ConfigError, match=r'scope=.last:3. trains 3 layers of the decoder, but this model has 2.*"last:2"'):
        Member.new(model, Recipe(scope="last:3"), ONE_VALUE)


def test_adapters_train_only_themselves(model: CMIMModel) -> None:
    found = gradients(model, Recipe(scope="lora:2"))
    assert found
    assert all(name.endswith((".up_OR", ".down_RI")) for name in found)
    for part in ("encoder.read.0", "decoder.0", "posterior.mean"):
        assert any(name.startswith(part) and size > 0 for name, size in found.items()), part


def test_a_new_adapter_adds_nothing_and_merging_is_exact() -> None:
    layer = torch.nn.Linear(5, 3)
    before, x = layer.weight.detach().clone(), torch.randn(4, 5)
    add_adapters(layer, 2)
    assert torch.equal(layer.weight, before)
    adapter = next(module for module in layer.modules() if isinstance(module, LowRank))
    torch.nn.init.normal_(adapter.up_OR)
    adapted = layer(x)
    expected = x @ (before + 2 * adapter.up_OR @ adapter.down_RI).T + layer.bias
    torch.testing.assert_close(adapted, expected)
    merge_adapters(layer)
    assert not hasattr(layer, "parametrizations")
    assert torch.equal(layer(x), adapted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scope": "first:1"},
        {"scope": "last:0"},
        {"kind": "max"},
        {"epochs": 0},
        {"validation": 1.0},
        {"head_rate": 0},
        {"class_weight": "yes"},
    ],
    ids=str,
)
def test_unknown_settings_are_errors(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Recipe(**wrong)  # type: ignore[arg-type]
