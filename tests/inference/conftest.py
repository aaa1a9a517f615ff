"""Model files of a tiny network with random weights, and loaded models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cmim.config import HeadsConfig, ModelConfig, NetworkConfig
from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer


def random_model(
    latents: int = 1,
    heads: HeadsConfig | None = None,
    encoder: str = "perceiver",
    posterior: str = "gaussian",
    decoder_layers: int = 2,
) -> ModelFile:
    torch.manual_seed(0)
    network = NetworkConfig(
        hidden_size=32,
        ffn_size=64,
        attention_heads=4,
        encoder_layers=2,
        decoder_layers=decoder_layers,
        latents=latents,
        encoder=encoder,
        posterior=posterior,
        max_positions=64,
        init_std=0.2,
        heads=heads or HeadsConfig(),
    )
    return ModelFile(ModelConfig(network=network), SmilesTokenizer().vocabulary, CMIMNetwork(network).state_dict())


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.nemo"
    write_model_file(path, random_model())
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> CMIMModel:
    return load(model_file)


@pytest.fixture(scope="session")
def model_of_three_latents(tmp_path_factory: pytest.TempPathFactory) -> CMIMModel:
    path = tmp_path_factory.mktemp("model") / "three.nemo"
    write_model_file(path, random_model(3))
    return load(path)
