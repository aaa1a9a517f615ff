"""References without training: the untrained network, the pixels, and the mean image."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from examples.images.cell import Cell, build
from examples.images.data import load
from examples.images.evaluation import evaluate
from examples.images.grid import Job, run_cell
from examples.images.measured_tables import accuracy_tables, likelihood_tables
from examples.images.references import log_likelihood_of_mean_image
from examples.images.results import weights_of
from examples.images.scores import accuracies_of, likelihoods_of
from nemo_cmim.errors import ConfigError
from tests.examples.images.small_sets import SMALL, small_cell, write_small_set


def reference(objective: str, seed: int = 0) -> Cell:
    return small_cell(objective, batch_size=0, seed=seed)


def test_references_are_evaluated_as_networks_are(tmp_path: Path) -> None:
    write_small_set(tmp_path, "breastmnist")
    found = {}
    for objective in ("untrained", "pixels"):
        job = Job(reference(objective), tmp_path, tmp_path / "cells", "cpu")
        run_cell(job)
        found[objective] = json.loads(job.file.read_text())
        assert not weights_of(job.file).exists()
    images = load("breastmnist", tmp_path)
    expected = evaluate(build(small_cell("cmim"))[0], images, small_cell("cmim"))
    assert {name: found["untrained"][name] for name in expected} == expected
    assert found["pixels"]["accuracy"]["pixels"]["knn_euclidean"] > 0.9  # the bright and the dark images of the set
    commonest = torch.bincount(images.train.labels_N).argmax()
    assert found["pixels"]["commonest_class"] == (images.test.first(20).labels_N == commonest).double().mean()
    assert found["pixels"]["mean_image"] == log_likelihood_of_mean_image(images.train.images_NP, images.test.first(20).images_NP)


def test_log_likelihood_of_the_mean_image() -> None:
    train = torch.tensor([[255, 0], [255, 0], [0, 0]], dtype=torch.uint8)
    one, other = 2.5 / 4, 0.5 / 4  # probabilities of the two pixels, with the grey image
    expected = math.log(one) + math.log(1 - other)
    assert log_likelihood_of_mean_image(train, train[:1]) == pytest.approx(expected)


def test_tables_show_the_references_of_the_same_seeds() -> None:
    def result(cell: Cell, value: float) -> dict[str, object]:
        kinds = ("pixels",) if cell.objective == "pixels" else ("mean", "informative")
        return {
            "cell": cell.as_mapping(),
            "accuracy": {kind: {"mlp": value} for kind in kinds},
            "log_likelihood": {"mean": -1.0, "drawn": -2.0},
            "mean_image": -206.25,
            "commonest_class": 0.125,
            "tested_images": 20,
        }

    runs = [result(small_cell("ae", size), 0.75) for size in (2, 5)]
    references = [result(reference("untrained"), 0.5), result(reference("pixels"), 0.25), result(reference("pixels", 1), 0.125)]
    note, *tables = accuracy_tables(accuracies_of(runs), references)
    assert "take no part in z-scores and ranks" in note and len(tables) == 2
    for table in tables:
        rows = (
            "| AE | 75.0 | 75.0 |",
            "| untrained | 50.0 | 50.0 |",
            "| pixels | 25.0 | 25.0 |",
            "| commonest class | 12.5 | 12.5 |",
        )
        assert table.splitlines()[-4:] == list(rows) and "20 test images." in table
    assert "| breastmnist | 2 | -1.0 (-2.0) | -206.2 |" in likelihood_tables(likelihoods_of(runs), references)[0]


def test_references_have_no_batch_size() -> None:
    with pytest.raises(ConfigError, match="batch_size must be 0 for pixels, found 2"):
        Cell(data="breastmnist", objective="pixels", batch_size=2, settings=SMALL)
    with pytest.raises(ConfigError, match="no effect on the objective untrained"):
        small_cell("untrained", batch_size=0, tau=0.3)
