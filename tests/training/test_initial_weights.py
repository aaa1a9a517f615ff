"""Runs that start from the weights of a model: `model.restore_from_path`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.inference.model_file import ModelFile, read_model_file, write_model_file
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.training.run import train
from tests.training.runs import GIVEN_H, RESUME, config, every_two

NOTHING_LEARNT = ("model.optim.lr=1e-30", "model.optim.sched=null")


def model_of(run: Path) -> ModelFile:
    (path,) = (run / "checkpoints").glob("*.nemo")
    return read_model_file(path)


def assert_same(found: ModelFile, expected: ModelFile, names: Iterable[str]) -> None:
    for name in names:
        torch.testing.assert_close(found.weights[name], expected.weights[name], rtol=0, atol=1e-20)


def started_from(place: Path) -> str:
    return f"model.restore_from_path={place}"


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.nemo` file of a short run without observed properties."""
    run = train(config(data, tmp_path_factory.mktemp("first") / "log", *every_two(2)))
    (path,) = (run / "checkpoints").glob("*.nemo")
    return path


def test_a_run_starts_from_the_weights_of_a_model(first: Path, data: Path, tmp_path: Path) -> None:
    started = (started_from(first), "model.network.min_variance=1e-3", "seed=5")
    found = model_of(train(config(data, tmp_path / "log", *every_two(2), *NOTHING_LEARNT, *started)))
    expected = read_model_file(first)
    assert found.weights.keys() == expected.weights.keys()
    assert_same(found, expected, expected.weights)
    assert (found.config.restore_from_path, found.config.network.min_variance) == (str(first), 1e-3)


def test_a_resumed_run_does_not_start_again_from_the_model(first: Path, data: Path, tmp_path: Path) -> None:
    steps = ("model.optim.sched=null", started_from(first), RESUME)
    straight = model_of(train(config(data, tmp_path / "straight", *every_two(4), *steps)))
    train(config(data, tmp_path / "resumed", *every_two(2), *steps))
    resumed = model_of(train(config(data, tmp_path / "resumed", *every_two(4), *steps)))
    assert_same(resumed, straight, straight.weights)


def test_heads_that_the_model_does_not_have_keep_their_initial_weights(first: Path, with_properties: Path, tmp_path: Path) -> None:
    found = model_of(
        train(config(with_properties, tmp_path / "log", *every_two(2), *NOTHING_LEARNT, *GIVEN_H, started_from(first)))
    )
    before = read_model_file(first)
    own = [name for name in found.weights if name not in before.weights]
    assert own and all(name.startswith("heads.") for name in own)
    assert any(found.weights[name].any() for name in own)
    assert_same(found, before, before.weights)


def test_heads_that_both_models_have_are_kept(with_properties: Path, tmp_path: Path) -> None:
    steps = (*every_two(2), *GIVEN_H)
    first = train(config(with_properties, tmp_path / "first", *steps))
    (path,) = (first / "checkpoints").glob("*.nemo")
    found = model_of(train(config(with_properties, tmp_path / "second", *steps, *NOTHING_LEARNT, "seed=5", started_from(path))))
    assert_same(found, model_of(first), model_of(first).weights)


def test_a_different_network_is_an_error(first: Path, data: Path, tmp_path: Path) -> None:
    message = "has a different network: model.network.decoder_layers is 2 instead of 3"
    with pytest.raises(ConfigError, match=message):
        train(config(data, tmp_path / "log", *every_two(1), started_from(first), "model.network.decoder_layers=3"))


def test_a_different_vocabulary_is_an_error(first: Path, data: Path, tmp_path: Path) -> None:
    content = read_model_file(first)
    own = Vocabulary.load(data / "vocabulary.txt")
    other = dataclasses.replace(own, tokens=tuple("[Xx]" if token == "Br" else token for token in own.tokens))
    write_model_file(tmp_path / "other.nemo", dataclasses.replace(content, vocabulary=other))
    with pytest.raises(ConfigError, match=f"{other.fingerprint[:12]}.*--vocabulary"):
        train(config(data, tmp_path / "log", *every_two(1), started_from(tmp_path / "other.nemo")))


def test_a_missing_model_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape("There is no model 'absent.nemo'")):
        train(config(data, tmp_path / "log", *every_two(1), "model.restore_from_path=absent.nemo"))
