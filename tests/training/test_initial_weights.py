"""Runs that start from the weights of a model: `model.restore_from_path`."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.inference.model_file import ModelFile, read_model_file, write_model_file
from nemo_cmim.mappings import hydra_quoted
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.training.run import train
from tests.training.ranks import start_training
from tests.training.runs import GIVEN_H, RESUME, config, every_two, overrides

NOTHING_LEARNT = ("model.optim.lr=1e-30", "model.optim.sched=null")


def file_of(run: Path) -> Path:
    (path,) = (run / "checkpoints").glob("*.nemo")
    return path


def model_of(run: Path) -> ModelFile:
    return read_model_file(file_of(run))


def assert_same(found: ModelFile, expected: ModelFile, names: Iterable[str]) -> None:
    for name in names:
        torch.testing.assert_close(found.weights[name], expected.weights[name], rtol=0, atol=1e-20)


def started_from(place: Path) -> str:
    return f"model.restore_from_path={hydra_quoted(place)}"


def heads_of(content: ModelFile) -> list[str]:
    return [name for name in content.weights if name.startswith("heads.")]


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.nemo` file of a short run without observed properties."""
    return file_of(train(config(data, tmp_path_factory.mktemp("first") / "log", *every_two(2))))


@pytest.fixture(scope="module")
def with_heads(with_properties: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `.nemo` file of a short run with observed properties."""
    return file_of(train(config(with_properties, tmp_path_factory.mktemp("heads") / "log", *every_two(2), *GIVEN_H)))


def test_a_run_starts_from_the_weights_of_a_model(first: Path, data: Path, tmp_path: Path) -> None:
    started = (started_from(first), "model.network.min_variance=1e-3", "seed=5")
    found, expected = (
        model_of(train(config(data, tmp_path / "log", *every_two(2), *NOTHING_LEARNT, *started))),
        read_model_file(first),
    )
    assert found.weights.keys() == expected.weights.keys()
    assert_same(found, expected, expected.weights)
    assert found.config.network.min_variance == 1e-3
    assert found.config.restore_from_path == first.name  # without the folder, which is of this machine


def test_two_tensor_parallel_ranks_start_from_a_model_in_bf16(first: Path, data: Path, tmp_path: Path) -> None:
    more = (*NOTHING_LEARNT, started_from(first), "trainer.precision=bf16", "model.parallel.tensor_model_parallel_size=2")
    start_training(tmp_path / "ranks", 2, overrides(data, tmp_path / "log", *every_two(2), *more)).succeed()
    found, expected = model_of(tmp_path / "log"), read_model_file(first)
    assert_same(found, expected, expected.weights)  # the master weights are in fp32


def test_a_resumed_run_does_not_start_again_from_the_model(first: Path, data: Path, tmp_path: Path) -> None:
    start = shutil.copy(first, tmp_path / "start.nemo")
    steps = ("model.optim.sched=null", started_from(start), RESUME)
    straight = model_of(train(config(data, tmp_path / "straight", *every_two(4), *steps)))
    train(config(data, tmp_path / "resumed", *every_two(2), *steps))
    start.unlink()
    resumed = model_of(train(config(data, tmp_path / "resumed", *every_two(4), *steps)))
    assert_same(resumed, straight, straight.weights)
    with pytest.raises(CheckpointError, match=re.escape(f"model.restore_from_path is {start} instead of {first}")):
        train(config(data, tmp_path / "resumed", *every_two(6), "model.optim.sched=null", started_from(first), RESUME))


def test_heads_that_the_model_does_not_have_keep_their_initial_weights(first: Path, with_properties: Path, tmp_path: Path) -> None:
    steps = (*every_two(2), *NOTHING_LEARNT, *GIVEN_H)
    initial = model_of(train(config(with_properties, tmp_path / "initial", *steps)))
    found = model_of(train(config(with_properties, tmp_path / "log", *steps, started_from(first))))
    assert heads_of(found)
    assert_same(found, initial, heads_of(found))
    assert_same(found, read_model_file(first), read_model_file(first).weights)


def test_heads_that_both_models_have_are_kept(with_heads: Path, with_properties: Path, tmp_path: Path) -> None:
    more = (*every_two(2), *NOTHING_LEARNT, *GIVEN_H, "seed=5", started_from(with_heads))
    found, expected = model_of(train(config(with_properties, tmp_path / "log", *more))), read_model_file(with_heads)
    assert heads_of(expected)
    assert_same(found, expected, expected.weights)


@pytest.mark.parametrize(
    ("heads", "told"),
    [((), "are left out"), (("model.objective.properties.bits_given_z=0.5",), "start with random weights")],
)
def test_a_warning_names_heads_that_are_not_kept(
    with_heads: Path, with_properties: Path, tmp_path: Path, heads: tuple[str, ...], told: str
) -> None:
    with pytest.warns(UserWarning, match=rf"heads\.h\.weight.*The heads {told}"):
        run = train(config(with_properties, tmp_path / "log", *every_two(2), *NOTHING_LEARNT, *heads, started_from(with_heads)))
    found, expected = model_of(run), read_model_file(with_heads)
    assert bool(heads_of(found)) == bool(heads)
    assert_same(found, expected, set(expected.weights) - set(heads_of(expected)))


def test_a_different_network_is_an_error(first: Path, data: Path, tmp_path: Path) -> None:
    message = "has a different network: decoder_layers 2 (this run: 3). Set model.network.decoder_layers=2."
    with pytest.raises(ConfigError, match=re.escape(message)):
        train(config(data, tmp_path / "log", *every_two(1), started_from(first), "model.network.decoder_layers=3"))


def test_a_different_vocabulary_is_an_error(first: Path, data: Path, tmp_path: Path) -> None:
    content = read_model_file(first)
    own = Vocabulary.load(data / "vocabulary.txt")
    other = dataclasses.replace(own, tokens=tuple("[Xx]" if token == "Br" else token for token in own.tokens))
    write_model_file(tmp_path / "other.nemo", dataclasses.replace(content, vocabulary=other))
    with pytest.raises(ConfigError, match=f"{other.fingerprint[:12]}.*--vocabulary"):
        train(config(data, tmp_path / "log", *every_two(1), started_from(tmp_path / "other.nemo")))


def test_a_missing_model_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape("model.restore_from_path=absent.nemo: There is no model 'absent.nemo'")):
        train(config(data, tmp_path / "log", *every_two(1), "model.restore_from_path=absent.nemo"))
