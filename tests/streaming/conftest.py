"""A tiny model with random weights, which decodes different latents to different short SMILES."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cmim.config import ModelConfig, NetworkConfig
from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.fit_density import fit_density
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    settings = NetworkConfig(
        hidden_size=16, ffn_size=32, attention_heads=2, encoder_layers=1, decoder_layers=1, max_positions=24, init_std=0.8
    )
    vocabulary = SmilesTokenizer().vocabulary
    weights = CMIMNetwork(settings).state_dict()
    weights["output_bias"][vocabulary.eos_id] = 8.0
    path = tmp_path_factory.mktemp("model") / "tiny.nemo"
    content = ModelFile(ModelConfig(network=settings), vocabulary, weights)
    molecules = [f"{'C' * chain}{end}" for chain in range(1, 9) for end in ("O", "N", "F", "C#N")]
    write_model_file(path, fit_density(content, molecules, device="cpu"))
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> CMIMModel:
    return load(model_file)
