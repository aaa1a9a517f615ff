"""The image experiments on a GPU: the random numbers, losses and scores of the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples.images.cell import MAIN
from examples.images.data import load
from examples.images.grid import Job, run_cell
from examples.images.training import train
from tests.examples.images.small_sets import small_cell, write_small_set


@pytest.mark.parametrize("objective", MAIN)
def test_losses_are_those_of_the_cpu(objective: str, device: str, tmp_path: Path) -> None:
    write_small_set(tmp_path, "breastmnist")
    images = load("breastmnist", tmp_path)
    found, expected = (train(small_cell(objective), images, device=torch.device(name)) for name in (device, "cpu"))
    assert found.network.device.type == device
    assert [one["loss"] for one in found.history] == pytest.approx([one["loss"] for one in expected.history], rel=1e-3)


def test_a_cell_has_its_device_and_the_scores_of_the_cpu(device: str, tmp_path: Path) -> None:
    write_small_set(tmp_path, "breastmnist")
    results = {}
    for name in (device, "cpu"):
        job = Job(small_cell(), tmp_path, tmp_path / name, name)
        run_cell(job)
        results[name] = json.loads(job.file.read_text())
    assert results[device]["device"] == device
    assert results[device]["log_likelihood"] == pytest.approx(results["cpu"]["log_likelihood"], rel=1e-3)


def test_a_run_of_the_cpu_is_resumed(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_set(tmp_path, "breastmnist")
    images, checkpoint = load("breastmnist", tmp_path), tmp_path / "checkpoint.pt"
    whole = train(small_cell(), images)
    losses = iter([{"loss": 5.0}])
    with monkeypatch.context() as context, pytest.raises(StopIteration):
        context.setattr("examples.images.training.validate", lambda *_: next(losses))
        train(small_cell(), images, checkpoint)
    resumed = train(small_cell(), images, checkpoint, torch.device(device))
    assert [one["loss"] for one in resumed.history[1:]] == pytest.approx([one["loss"] for one in whole.history[1:]], rel=1e-3)
