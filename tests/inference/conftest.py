"""A tiny model with random weights, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cmim.config import ModelConfig, NetworkConfig
from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.checkpoint import Checkpoint, write_checkpoint
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer


def random_checkpoint(latents: int = 1) -> Checkpoint:
    torch.manual_seed(0)
    network = NetworkConfig(
        hidden_size=32,
        ffn_size=64,
        attention_heads=4,
        encoder_layers=2,
        decoder_layers=2,
        latents=latents,
        max_positions=64,
        init_std=0.2,
    )
    return Checkpoint(ModelConfig(network=network), SmilesTokenizer().vocabulary, CMIMNetwork(network).state_dict())


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.nemo"
    write_checkpoint(path, random_checkpoint())
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> CMIMModel:
    return load(model_file)


@pytest.fixture(scope="session")
def model_of_three_latents(tmp_path_factory: pytest.TempPathFactory) -> CMIMModel:
    path = tmp_path_factory.mktemp("model") / "three.nemo"
    write_checkpoint(path, random_checkpoint(3))
    return load(path)
