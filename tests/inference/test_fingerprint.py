"""The fingerprint of an embedding: everything that changes vectors changes it, and nothing else does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from nemo_cmim.cli import main
from nemo_cmim.config import HeadsConfig, NetworkConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel, capabilities, fingerprint, list_models, load
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import Vocabulary
from tests.inference.conftest import random_model


def of(content: ModelFile) -> str:
    return CMIMModel(content, "cpu").fingerprint()


def with_network(**changes: object) -> ModelFile:
    own = random_model()
    return dataclasses.replace(
        own, config=dataclasses.replace(own.config, network=dataclasses.replace(own.config.network, **changes))
    )  # type: ignore[arg-type]


def test_file_name_card_training_settings_and_stored_precision_do_not_matter(tmp_path: Path) -> None:
    own = random_model()
    weights = {name: weight.half() for name, weight in own.weights.items()}
    half = dataclasses.replace(own, weights=weights)
    objective, optim = dataclasses.replace(own.config.objective, name="mim"), dataclasses.replace(own.config.optim, lr=0.5)
    training = dataclasses.replace(own.config, objective=objective, optim=optim)
    write_model_file(tmp_path / "other.nemo", dataclasses.replace(own, config=training, card="# Other"))
    assert load(tmp_path / "other.nemo").fingerprint() == of(own)
    assert of(half) == of(dataclasses.replace(own, weights={name: weight.float() for name, weight in weights.items()})) != of(own)


def test_property_heads_do_not_matter() -> None:
    own, heads = random_model(), random_model(heads=HeadsConfig(sources="hz", values=("MolWt",)))
    weights = {name: own.weights.get(name, weight) for name, weight in heads.weights.items()}
    assert weights.keys() > own.weights.keys()
    assert of(dataclasses.replace(heads, weights=weights)) == of(own)


def test_every_argument_that_changes_vectors_changes_the_fingerprint(model: CMIMModel) -> None:
    found = [
        model.fingerprint(), model.fingerprint("mean"), model.fingerprint(layers=(1,)), model.fingerprint(layers=(1, 2)),
        model.fingerprint(layers=(2, 1)), model.fingerprint(pooling="last"), model.fingerprint(canonical=False),
    ]  # fmt: skip
    assert len(set(found)) == len(found) and all(len(text) == 64 for text in found)
    assert model.fingerprint() == model.fingerprint("informative", layers=[2], pooling="mean", canonical=True)
    with pytest.raises(ConfigError, match="layers must be"):
        model.fingerprint(layers=(3,))


def test_weights_names_shapes_settings_and_vocabulary_change_the_fingerprint() -> None:
    own = random_model()
    weights = {name: weight.clone() for name, weight in own.weights.items()}
    weights["output_bias"][7] += 1e-7
    tokens = own.vocabulary.tokens
    other = [
        own,
        dataclasses.replace(own, weights=weights),
        dataclasses.replace(own, vocabulary=Vocabulary((*tokens[:-2], tokens[-1], tokens[-2]))),
        with_network(attention_heads=2),
        with_network(layer_norm_eps=1e-6),
    ]
    assert len({of(content) for content in other}) == len(other)
    digests = {
        fingerprint.weights_digest(one)
        for one in ({"a": torch.zeros(4)}, {"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(3)}, {})
    }
    assert len(digests) == 5
    two = {"a": torch.ones(2), "b": torch.zeros(2)}
    assert fingerprint.weights_digest(two) == fingerprint.weights_digest(dict(reversed(two.items())))


@pytest.mark.parametrize("constant", ["_VERSION", "CANONICALISATION"])
def test_the_version_of_the_code_and_of_the_canonical_form_change_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, model: CMIMModel, constant: str
) -> None:
    before, without = model.fingerprint(), model.fingerprint(canonical=False)
    monkeypatch.setattr(fingerprint, constant, "other")
    assert model.fingerprint() != before
    assert (model.fingerprint(canonical=False) == without) == (constant == "CANONICALISATION")


def test_the_fingerprint_is_that_of_other_versions_and_machines() -> None:
    """If this fails, saved fingerprints are no longer valid: users have to compute their vectors again."""
    network = NetworkConfig(hidden_size=8, ffn_size=8, attention_heads=2, encoder_layers=1, decoder_layers=1, max_positions=8)
    shapes = {name: weight.shape for name, weight in CMIMNetwork(network).state_dict().items()}
    weights = {name: torch.arange(shape.numel()).reshape(shape) / 1024 for name, shape in shapes.items()}
    spec = capabilities.EmbeddingSpec("informative", (1,), "mean", 8)
    found = fingerprint.embedding_fingerprint(fingerprint.weights_digest(weights), network, "0" * 64, spec, canonical=True)
    assert found == "b8ab2656273618cbb8d30e6ad5f31f36766756dd6f7a6501cad03578694a3b6d"


def test_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CMIMModel(random_model(), "cpu")
    first = model.fingerprint("mean"), model.fingerprint()
    monkeypatch.setattr("nemo_cmim.inference.loaded.weights_digest", None)  # a second call would fail
    assert (model.fingerprint("mean"), model.fingerprint()) == first


def test_the_command_models_shows_fingerprints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [load(name).fingerprint()[:12] for name in list_models()]
