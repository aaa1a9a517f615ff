"""Molecules, models and predictions for the tests of the scripts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from evaluation import Protocol, Row

from nemo_cmim.config import ModelConfig, NetworkConfig, ObjectiveConfig
from nemo_cmim.downstream import RegressionData, random_folds, scaffold_split
from nemo_cmim.inference.checkpoint import Checkpoint, write_checkpoint
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer

RINGS = [f"C1{'C' * ring}C1{'C' * tail}" for ring in range(1, 16) for tail in (1, 2)]
"""30 molecules with 15 scaffolds."""


def write_model(path: Path, objective: str, max_tokens: int, seed: int = 0, decoder_layers: int = 2) -> Path:
    """A tiny network with random weights."""
    torch.manual_seed(seed)
    network = NetworkConfig(
        hidden_size=16,
        encoder_layers=1,
        decoder_layers=decoder_layers,
        attention_heads=2,
        ffn_size=16,
        max_positions=max_tokens + 1,
        init_std=0.3,
    )
    config = ModelConfig(network=network, objective=ObjectiveConfig(name=objective))
    write_checkpoint(path, Checkpoint(config, SmilesTokenizer().vocabulary, CMIMNetwork(network).state_dict()))
    return path


def made_up_predictions(row: Row, data: RegressionData, protocol: Protocol) -> pd.DataFrame:
    """Predictions on the splits of the protocol, without fitting anything."""
    rng = np.random.default_rng(len(row.name))
    tables = []
    for split, head, seed in itertools.product(protocol.splits, ("svm", "mlp"), protocol.seeds):
        is_random = split == "random"
        folds = random_folds(data.canonical, protocol.folds, seed) if is_random else [scaffold_split(data.canonical, seed=seed)]
        for fold, (_, test) in enumerate(folds):
            key = {"data": data.name, "split": split, "features": row.name, "head": head, "seed": seed, "fold": fold, "row": test}
            target = data.targets[test]
            tables.append(pd.DataFrame({**key, "target": target, "prediction": target + rng.normal(size=len(test))}))
    return pd.concat(tables)
