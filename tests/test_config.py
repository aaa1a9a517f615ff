"""Settings: defaults are those of the paper, and wrong keys and values are errors. training/test_pretrain_config.py compares the YAML."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from nemo_cmim.config import ModelConfig, NetworkConfig, OptimConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.mappings import from_mapping, to_mapping


def test_defaults_are_those_of_the_paper() -> None:
    network, optim = NetworkConfig(), OptimConfig()
    assert (network.hidden_size, network.encoder_layers, network.decoder_layers, network.attention_heads) == (512, 6, 6, 8)
    assert (network.ffn_size, network.max_positions, network.dropout, network.vocabulary_size) == (2048, 512, 0.1, 523)
    assert (optim.name, optim.lr, optim.betas, optim.eps, optim.weight_decay) == ("adam", 1e-4, (0.9, 0.999), 1e-8, 0.0)
    assert (optim.sched.name, optim.sched.warmup_ratio, optim.sched.min_lr) == ("NoamAnnealing", 0.008, 1e-5)


def test_mapping_round_trip() -> None:
    config = from_mapping(ModelConfig, {"network": {"latents": 4}, "train_ds": {"folder": "x"}, "optim": {"betas": [0.8, 0.9]}})
    assert config.optim.betas == (0.8, 0.9)
    assert from_mapping(ModelConfig, yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config


def test_an_optimiser_gets_only_its_own_arguments() -> None:
    shared = {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
    assert OptimConfig(name="adamw").arguments == {"name": "adamw", **shared}
    assert OptimConfig(name="muon", momentum=0.9).arguments == {"name": "muon", **shared, "momentum": 0.9, "iterations": 5}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"network": {"hiden_size": 3}}, "Unknown config key model.network.hiden_size. Did you mean model.network.hidden_size?"),
        ({"networks": {}}, "Unknown config key model.networks. Did you mean model.network?"),
        ({"network": {"hidden_size": "512"}}, "model.network.hidden_size must be of type int, found '512' (str)."),
        ({"network": {"hidden_size": True}}, "model.network.hidden_size must be of type int, found True (bool)."),
        ({"optim": {"sched": {"hold_ratio": 2}}}, "optim.sched.hold_ratio must be in [0, 1], found 2.0."),
        (
            {"optim": {"sched": {"hold_ratio": 0.8}}},
            "optim.sched.hold_ratio has no effect with optim.sched.name=NoamAnnealing. Remove it, or use WarmupHoldAnnealLinear.",
        ),
        ({"network": 3}, "model.network must be a mapping, found 3."),
        ({"network": {"hidden_size": 511}}, "network.hidden_size (511) must be a multiple of network.attention_heads (8)."),
        ({"network": {"dropout": 1.0}}, "network.dropout must be in [0, 1), found 1.0."),
        ({"network": {"latents": 0}}, "network.latents must be at least 1, found 0."),
        ({"network": {"heads": {"sources": "x"}}}, 'network.heads.sources must be "", "h", "z" or "hz", found \'x\'.'),
        ({"network": {"heads": {"sources": "h"}}}, "network.heads.sources=h has nothing to predict: set values or bits."),
        (
            {"network": {"decoder_layers": 0, "heads": {"sources": "h", "bits": 8}}},
            "network.heads.sources=h needs a decoder, but decoder_layers is 0.",
        ),
        ({"objective": {"properties": {"sigma": 0}}}, "objective.properties.sigma must be positive, found 0.0."),
        ({"objective": {"properties": {"bits_given_z": -1}}}, "objective.properties.bits_given_z must be at least 0, found -1.0."),
        ({"objective": {"weights": [1]}}, "model.objective.weights must be a mapping, found [1]."),
        ({"objective": {"weights": {"log_p_k1": "x"}}}, "model.objective.weights.log_p_k1 must be of type float, found 'x' (str)."),
        (
            {"augmentation": {"strings": "random"}},
            "augmentation.strings must be canonical | same_random | different_random, found 'random'.",
        ),
        ({"objective": {"tau": 0}}, "objective.tau must be positive, found 0.0."),
        ({"optim": {"betas": [0.9]}}, "model.optim.betas must be a list of 2 values, found [0.9]."),
        ({"optim": {"momentum": 0.9}}, "optim.momentum=0.9 has no effect with optim.name=adam. Remove it, or set name to muon."),
        ({"optim": {"name": "muon", "iterations": 0}}, "optim.iterations must be from 1 to 6, found 0."),
        ({"optim": {"name": "muon", "momentum": 1.0}}, "optim.momentum must be in [0, 1), found 1.0."),
        ({"parallel": {"pipeline_model_parallel_size": 2}}, "pipeline parallelism is not supported"),
        ({"parallel": {"tensor_model_parallel_size": 3}}, "must be a multiple of parallel.tensor_model_parallel_size (3)."),
        ({"train_ds": {"folder": "x", "split": "dev"}}, "split must be train, valid or test, found 'dev'."),
    ],
)
def test_invalid_configs_are_errors(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_mapping(ModelConfig, mapping, "model")


@pytest.mark.parametrize(
    ("old", "strings"),
    [
        ({"enumerate_smiles": True}, "different_random"),
        ({"enumerate_smiles": False}, "canonical"),
        ({"enumerate_smiles": True, "strings": "canonical"}, "different_random"),  # an old override of the new defaults
        ({"enumerate_smiles": False, "strings": "same_random"}, "same_random"),
    ],
)
def test_the_key_of_earlier_versions_for_strings(old: dict[str, Any], strings: str) -> None:
    assert from_mapping(ModelConfig, {"augmentation": old}, "model").augmentation.strings == strings
