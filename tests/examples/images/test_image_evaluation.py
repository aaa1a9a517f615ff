"""Classifiers, embeddings, log-likelihoods and posteriors of the image experiments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.images.cell import build
from examples.images.data import Images, load, pixels
from examples.images.draws import generator
from examples.images.evaluation import accuracies, embed, evaluate, log_likelihoods, posterior_summary
from examples.images.network import NetworkSizes, encode_all
from nemo_cmim.types import Posterior
from tests.examples.images.small_sets import SMALL, small_cell, write_small_set


@pytest.fixture
def images(tmp_path: Path) -> Images:
    write_small_set(tmp_path, "breastmnist")
    return load("breastmnist", tmp_path)


def test_classifiers_find_what_is_there() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    vectors = (random.normal(size=(200, 4)) + 4 * labels[:, None]).astype(np.float32)
    cell = small_cell(settings=dataclasses.replace(SMALL, mlp_steps=300))
    found = accuracies(vectors[:150], vectors[150:], labels[:150], labels[150:], cell)
    assert set(found) == {"knn_cosine", "knn_euclidean", "mlp"} and found["knn_euclidean"] > 0.95 and found["mlp"] > 0.95


def test_cosine_and_euclidean_neighbours_differ() -> None:
    long, near = [[10.0, 0.0]] * 5, [[1.0, 1.0]] * 5
    vectors, labels = np.array(long + near, dtype=np.float32), np.array([0] * 5 + [1] * 5)
    found = accuracies(vectors, np.array([[1.0, 0.0]], dtype=np.float32), labels, np.array([0]), small_cell())
    assert (found["knn_cosine"], found["knn_euclidean"]) == (1.0, 0.0)  # parallel to the long vectors, but closer to the others


def test_the_mlp_has_the_paper_s_width_and_number_of_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded:
        def __init__(self, *args: object, **more: object) -> None:
            calls.append((args, more))

        def fit(self, *_: object) -> Recorded:
            return self

        def score(self, *_: object) -> float:
            return 0.5

    calls: list[object] = []
    monkeypatch.setattr("examples.images.evaluation.MLPClassifier", Recorded)
    for images, updates, epochs in ((450, 1000, 333), (450, 300, 100), (30, 5, 5)):  # of 3, 3 and 1 batches
        cell = small_cell(seed=7, settings=dataclasses.replace(SMALL, mlp_steps=updates))
        labels = np.arange(images) % 2
        accuracies(np.eye(images, 4, dtype=np.float32), np.eye(2, 4, dtype=np.float32), labels, labels[:2], cell)
        assert calls.pop() == (((400,),), {"learning_rate_init": 1e-3, "max_iter": epochs, "random_state": 7})


def test_bright_and_dark_images_are_told_apart(images: Images) -> None:
    sizes = NetworkSizes(latents=16, hidden=8, layers=1, dimensions=8)
    cell = small_cell(settings=dataclasses.replace(SMALL, sizes=sizes, mlp_steps=200))
    found = evaluate(build(cell)[0], images, cell)["accuracy"]
    assert all(value > 0.9 for by_classifier in found.values() for value in by_classifier.values()) and len(found) == 2


@torch.no_grad()
def test_log_likelihoods_are_at_the_mean_and_at_a_draw(images: Images) -> None:
    network, x = build(small_cell())[0], pixels(images.test.images_NP)
    q = Posterior(torch.randn(20, 1, 3), torch.ones(20, 1, 3))
    noise = torch.randn(20, 1, 3, generator=generator(5, "test"))
    found = log_likelihoods(network, x, q, seed=5)
    expected = {
        name: float(network.log_p_x_given_z(x, z).mean()) for name, z in (("mean", q.mean_BKD), ("drawn", q.mean_BKD + noise))
    }
    assert found == pytest.approx(expected, rel=1e-6) and abs(found["mean"] - found["drawn"]) > 1e-2


def test_evaluation_has_both_embeddings_unless_there_is_no_decoder(images: Images) -> None:
    network, _ = build(small_cell())
    found = evaluate(network, images, small_cell())
    assert set(found["accuracy"]) == {"mean", "informative"} and found["classifier_images"] == 30 and found["tested_images"] == 20
    assert found["log_likelihood"]["mean"] < 0 and found["log_likelihood"]["drawn"] < 0
    q = encode_all(network, pixels(images.test.images_NP))
    assert embed(network, q, "mean").shape == (20, 3) and embed(network, q, "informative").shape == (20, 4)
    encoder, _ = build(small_cell("infonce"))
    found = evaluate(encoder, images, small_cell("infonce"))
    assert set(found["accuracy"]) == {"mean"} and found["log_likelihood"] is None


def test_the_posterior_is_summarised_over_images_and_dimensions() -> None:
    mean = torch.tensor([[0.0, 1.0], [4.0, 3.0]]).unsqueeze(1)  # standard deviations over images 2 and 1
    variance = torch.tensor([[1e-6, 1.005e-6], [0.5, 0.7]]).unsqueeze(1)
    found = posterior_summary(Posterior(mean, variance), 1e-6)
    assert found == pytest.approx({"median_variance": 1.005e-6, "at_floor": 0.5, "sd_of_means": 1.5})
    without = posterior_summary(Posterior(mean, torch.zeros_like(mean)), None)
    assert without == {"median_variance": None, "at_floor": None, "sd_of_means": 1.5}


def test_networks_know_the_smallest_variance_that_they_can_have() -> None:
    network, _ = build(small_cell("cmim"))
    with torch.no_grad():
        network.posterior.log_variance.bias.fill_(-50)  # type: ignore[operator, union-attr]
    q = encode_all(network, torch.rand(4, 784))
    assert network.min_variance is not None and torch.all(q.variance_BKD == network.min_variance)
    assert build(small_cell("ae"))[0].min_variance is None
