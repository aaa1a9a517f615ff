"""Models without bottleneck, decoder or prior: results, and errors of methods that they do not support."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nemo_cmim.config import ModelConfig, NetworkConfig, ObjectiveConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer

SMILES = ["CCO", "Oc1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "CCO", "N"]
NETWORKS: dict[str, dict[str, Any]] = {
    "bart": {"encoder": "transformer", "posterior": "point"},
    "infonce": {"posterior": "point", "decoder_layers": 0},
    "ae": {"posterior": "point", "latents": 2},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CMIMModel]:
    folder: Path = tmp_path_factory.mktemp("models")
    loaded = {}
    for name, changes in NETWORKS.items():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "ffn_size": 64, "attention_heads": 4, "encoder_layers": 2, "max_positions": 64, "init_std": 0.2}
        network = NetworkConfig(**({"decoder_layers": 2} | sizes | changes))
        config = ModelConfig(network=network, objective=ObjectiveConfig(name=name))
        weights = CMIMNetwork(network).state_dict()
        write_model_file(folder / f"{name}.nemo", ModelFile(config, SmilesTokenizer().vocabulary, weights))
        loaded[name] = load(folder / f"{name}.nemo")
    return loaded


def test_mean_embedding_of_bart_averages_the_encoder_states(models: dict[str, CMIMModel]) -> None:
    model = models["bart"]
    vectors = model.embed(SMILES, "mean")
    assert vectors.shape == (5, 32)
    for smiles, vector in zip(SMILES, vectors):
        ids = torch.tensor([model.tokenizer.encode(smiles)])
        states = model.network.encode(ids, torch.ones_like(ids, dtype=torch.bool)).mean_BKD
        np.testing.assert_allclose(vector, states[0].mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("bart", "mean"), ("bart", "informative"), ("infonce", "mean"), ("ae", "informative")])
def test_vectors_do_not_depend_on_the_batch(models: dict[str, CMIMModel], name: str, kind: str) -> None:
    model = models[name]
    together = model.embed(SMILES, kind)
    for size in (1, 2):
        np.testing.assert_allclose(model.embed(SMILES, kind, batch_size=size), together, rtol=1e-4, atol=1e-5)


def test_reconstruction_without_a_bottleneck_keeps_order_and_duplicates(models: dict[str, CMIMModel]) -> None:
    with pytest.warns(UserWarning, match="had not ended"):
        together = models["bart"].reconstruct(SMILES, max_tokens=10)
        alone = [models["bart"].reconstruct([s], max_tokens=10)[0] for s in SMILES]
    assert together == alone


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        ("infonce", lambda m: m.embed(SMILES), r'kind="informative" needs a decoder.*objective infonce.*pass kind="mean"'),
        ("infonce", lambda m: m.decode(torch.zeros(1, 1, 32)), "decode needs a decoder"),
        ("infonce", lambda m: m.reconstruct(SMILES), "reconstruct needs a decoder"),
        ("infonce", lambda m: m.sample(2), "sample needs a decoder"),
        ("infonce", lambda m: m.interpolate("C", "CC"), "interpolate needs a decoder"),
        ("bart", lambda m: m.encode(SMILES), r"encode needs a fixed number of latents.*objective bart.*no bottleneck"),
        ("bart", lambda m: m.decode(torch.zeros(1, 1, 32)), "decode needs a fixed number of latents.*call reconstruct"),
        ("bart", lambda m: m.interpolate("C", "CC"), "no bottleneck"),
        ("bart", lambda m: m.sample(2), "sample needs a prior"),
        ("ae", lambda m: m.sample(2), "sample needs a prior.*objective ae.*call reconstruct"),
        ("ae", lambda m: m.sample(2, smiles=SMILES), "sample needs a prior"),
        ("ae", lambda m: m.embed(SMILES, sample=True), "sample=True has no effect.*latent of this model.*deterministic"),
    ],
)
def test_unsupported_methods_raise(models: dict[str, CMIMModel], name: str, call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(models[name])


def test_an_autoencoder_encodes_decodes_and_interpolates(models: dict[str, CMIMModel]) -> None:
    model = models["ae"]
    posterior = model.encode(SMILES)
    assert posterior.mean_BKD.shape == (5, 2, 32) and not posterior.variance_BKD.any()
    with pytest.warns(UserWarning, match="had not ended"):
        assert model.decode(posterior.mean_BKD, max_tokens=8) == model.reconstruct(SMILES, max_tokens=8)
        assert len(model.interpolate("CCO", "CCN", 3, max_tokens=8)) == 3
