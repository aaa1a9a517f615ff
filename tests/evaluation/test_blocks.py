"""Blocks of an evaluation: what they hold, what they depend on, and how they are resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from nemo_cmim import load
from nemo_cmim.downstream import RegressionData, builtin_featurizer, evaluate, load_moleculenet, named_heads
from nemo_cmim.errors import ConfigError
from nemo_cmim.evaluation import blocks, digest
from nemo_cmim.evaluation.blocks import measure_all
from nemo_cmim.evaluation.features import EACH_SEED, EmbeddingSpec, FeatureSet, with_random_weights, write_vectors
from nemo_cmim.evaluation.measure import Protocol, measure, results_from, rmse_of_runs
from nemo_cmim.inference.model_file import read_model_file, write_model_file
from tests.evaluation.made_up import made_up_predictions, write_model


@pytest.fixture
def esol(data_folder: Path) -> RegressionData:
    return load_moleculenet(data_folder)[0]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The blocks that are measured, by data and features. Nothing is fitted."""
    found: list[tuple[str, str]] = []

    def counted(features: FeatureSet, data: RegressionData, protocol: Protocol) -> pd.DataFrame:
        found.append((data.name, features.name))
        return made_up_predictions(features, data, protocol)

    monkeypatch.setattr(blocks, "measure", counted)
    return found


def silent(_: str) -> None:
    pass


@pytest.mark.parametrize("weights", [3, EACH_SEED])
def test_random_weights_are_drawn_once_or_for_each_seed(models: dict[str, Path], esol: RegressionData, weights: Any) -> None:
    protocol = Protocol(seeds=(3, 4), folds=3, mlp_steps=2, splits=("random",))
    specs = (EmbeddingSpec("mean"), EmbeddingSpec())
    features = FeatureSet("r", model=str(models["cmim"]), embeddings=specs, random_weights=weights)
    found = rmse_of_runs(measure(features, esol, protocol))
    for seed in protocol.seeds:
        model = with_random_weights(load(models["cmim"]), seed if weights == EACH_SEED else weights)
        vectors = np.hstack([model.embed(esol.smiles, kind="mean"), model.embed(esol.smiles, kind="informative")])
        heads = named_heads(("svm", "mlp"), 2)
        expected = evaluate(esol, {"r": lambda _, v=vectors: v}, heads, folds=3, seeds=(seed,)).runs
        np.testing.assert_allclose(found[found["seed"] == seed]["rmse"], expected["rmse"], rtol=1e-6)
    assert found["rmse"].nunique() == 4


def test_random_weights_leave_the_model_unchanged(models: dict[str, Path]) -> None:
    model = load(models["cmim"])
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    assert with_random_weights(model, 5).fingerprint() != model.fingerprint()
    assert all(torch.equal(before[name], weight) for name, weight in model.network.state_dict().items())


def test_vectors_of_a_file_are_found_by_molecule(esol: RegressionData, tmp_path: Path, measured: list[tuple[str, str]]) -> None:
    protocol = Protocol(seeds=(0,), folds=2, mlp_steps=3)
    vectors = np.random.default_rng(0).normal(size=(len(esol), 3))
    order = np.random.default_rng(1).permutation(len(esol))
    write_vectors(tmp_path / "v.npz", [esol.smiles[row] for row in order], vectors[order])
    features = FeatureSet("v", vectors=str(tmp_path / "v.npz"))
    found = rmse_of_runs(measure(features, esol, protocol))
    expected = evaluate(esol, {"v": lambda _: vectors}, named_heads(("svm", "mlp"), 3), folds=2, seeds=(0,)).runs
    np.testing.assert_allclose(found[found["split"] == "random"]["rmse"], expected["rmse"], rtol=1e-6)

    def measure_file(name: str) -> int:
        measure_all([FeatureSet("v", vectors=str(tmp_path / name))], [esol], protocol, tmp_path / "blocks", say=silent)
        return len(measured)

    write_vectors(tmp_path / "same.npz", [esol.smiles[row] for row in order], vectors[order])
    write_vectors(tmp_path / "other.npz", esol.smiles, vectors + 1)
    assert [measure_file(name) for name in ("v.npz", "same.npz", "other.npz")] == [1, 1, 2], "the content decides, not the path"


@pytest.mark.parametrize("name", ["rdkit", "morgan64"])
def test_a_block_has_the_predictions_of_evaluate(name: str, esol: RegressionData) -> None:
    protocol = Protocol(seeds=(0, 1), folds=2, mlp_steps=3)
    found = measure(FeatureSet("r", builtin=name), esol, protocol)
    for split in protocol.splits:
        alone = {"r": builtin_featurizer(name)}
        expected = evaluate(esol, alone, named_heads(("svm", "mlp"), 3), split=split, folds=2, seeds=(0, 1))
        of_split = found[found["split"] == split].reset_index(drop=True)
        pd.testing.assert_frame_equal(
            of_split[list(expected.predictions.drop(columns="smiles"))], expected.predictions.drop(columns="smiles")
        )
        results = results_from(found, esol, protocol, split)
        pd.testing.assert_frame_equal(results.predictions, expected.predictions)
        pd.testing.assert_frame_equal(results.runs, expected.runs)
        assert (results.protocol, results.baseline_rmse) == (expected.protocol, expected.baseline_rmse)
    with pytest.raises(ConfigError, match='"random" or "scaffold"'):
        results_from(found, esol, protocol, "time")


def test_a_repeated_feature_set_is_measured_once(measured: list[tuple[str, str]], esol: RegressionData, tmp_path: Path) -> None:
    twice = [FeatureSet("r", builtin="morgan64")] * 2
    measure_all(twice, [esol], Protocol(seeds=(0,), folds=2), tmp_path, say=silent)
    assert measured == [(esol.name, "r")]


def test_an_interrupted_evaluation_resumes(
    measured: list[tuple[str, str]], data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = load_moleculenet(data_folder)[:2]
    features, protocol = (
        [FeatureSet(name, builtin=name) for name in ("morgan64", "morgan128", "rdkit")],
        Protocol(seeds=(0,), folds=2),
    )
    counted = blocks.measure

    def interrupted(*block: Any) -> pd.DataFrame:
        if len(measured) == 4:
            raise KeyboardInterrupt
        return counted(*block)

    monkeypatch.setattr(blocks, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_all(features, sets, protocol, tmp_path / "blocks", say=silent)
    assert len(list((tmp_path / "blocks").iterdir())) == 4, "complete blocks only"
    monkeypatch.setattr(blocks, "measure", counted)
    said: list[str] = []
    found = measure_all(features, sets, protocol, tmp_path / "blocks", say=said.append)
    assert said[0] == "4 of 6 blocks were measured before" and len(measured) == len(set(measured)) == 6
    again = measure_all(features, sets, protocol, tmp_path / "blocks", say=said.append)
    pd.testing.assert_frame_equal(found, again)
    assert said[-1] == "6 of 6 blocks were measured before"


def test_everything_that_changes_the_numbers_measures_again(
    measured: list[tuple[str, str]], models: dict[str, Path], esol: RegressionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.nemo"
    path.write_bytes(models["cmim"].read_bytes())
    features = FeatureSet("f", model=str(path), embeddings=(EmbeddingSpec(),))
    protocol = Protocol(seeds=(0,), folds=2)

    def measures(features: FeatureSet = features, data: RegressionData = esol, protocol: Protocol = protocol) -> int:
        before = len(measured)
        measure_all([features], [data], protocol, tmp_path / "blocks", say=silent)
        return len(measured) - before

    assert measures() == 1 and measures() == 0
    for change in (
        {"seeds": (1,)}, {"seeds": (0, 1)}, {"splits": ("random",)}, {"folds": 3}, {"heads": ("svm",)}, {"mlp_steps": 7},
    ):  # fmt: skip
        assert measures(protocol=dataclasses.replace(protocol, **change)) == 1, change  # type: ignore[arg-type]
    for spec in (EmbeddingSpec("mean"), EmbeddingSpec(layers=(1,)), EmbeddingSpec(pooling="last")):
        assert measures(dataclasses.replace(features, embeddings=(spec,))) == 1, spec
    for weights in (0, 1, EACH_SEED):
        assert measures(dataclasses.replace(features, random_weights=weights)) == 1, weights  # type: ignore[arg-type]
    targets = esol.targets.copy()
    targets[3] += 1e-9
    assert measures(data=dataclasses.replace(esol, targets=targets)) == 1
    assert measures(data=dataclasses.replace(esol, smiles=[*esol.smiles[1:], esol.smiles[0]])) == 1
    assert measures(dataclasses.replace(features, model=str(models["cmim"]))) == 0, "the same model at another path"
    assert measures(dataclasses.replace(features, model=str(models["mim"]))) == 1
    write_model(path, "cmim", 31, seed=7)
    assert measures() == 1, "other weights in the same file"
    write_model(path, "mim", 31, seed=7)
    assert measures() == 0, "the objective of the training does not change vectors"
    content = read_model_file(path)
    network = dataclasses.replace(content.config.network, layer_norm_eps=1e-4)
    write_model_file(path, dataclasses.replace(content, config=dataclasses.replace(content.config, network=network)))
    assert measures() == 1, "other settings of the network with the same weights"
    for library in digest.LIBRARIES:
        monkeypatch.setattr(digest, "version", lambda name, changed=library: "9" if name == changed else "0")
        assert measures() == 1 and measures() == 0, library
    monkeypatch.setattr(blocks, "code_digest", lambda module: "changed")
    assert measures() == 1


@pytest.mark.slow
def test_blocks_measured_in_processes_are_the_same(models: dict[str, Path], data_folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="left out"):
        sets = load_moleculenet(data_folder, load(models["mim"]).invalid_reason)[:2]
    protocol = Protocol(seeds=(0, 1), folds=2, mlp_steps=2)
    features = [
        FeatureSet("m", model=str(models["mim"]), embeddings=(EmbeddingSpec("mean"),)),
        FeatureSet("64", builtin="morgan64"),
    ]
    one, two = (measure_all(features, sets, protocol, tmp_path / str(jobs), jobs=jobs, say=silent) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two)
