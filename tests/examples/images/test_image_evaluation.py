"""Classifiers, embeddings, log-likelihoods and posteriors of the image experiments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.images.cell import build
from examples.images.data import Images, load, pixels
from examples.images.evaluation import accuracies, embed, evaluate, posterior_summary
from examples.images.network import encode_all
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
    mean = torch.tensor([[0.0, 1.0], [2.0, 1.0]]).unsqueeze(1)  # standard deviations 1 and 0
    variance = torch.tensor([[1e-6, 1.005e-6], [0.5, 0.7]]).unsqueeze(1)
    found = posterior_summary(Posterior(mean, variance), 1e-6)
    assert found == pytest.approx({"median_variance": 1.005e-6, "at_floor": 0.5, "sd_of_means": 0.5})
    without = posterior_summary(Posterior(mean, torch.zeros_like(mean)), None)
    assert without == {"median_variance": None, "at_floor": None, "sd_of_means": 0.5}


def test_networks_know_the_smallest_variance_that_they_can_have() -> None:
    network, _ = build(small_cell("cmim"))
    with torch.no_grad():
        network.posterior.log_variance.bias.fill_(-50)  # type: ignore[operator, union-attr]
    q = encode_all(network, torch.rand(4, 784))
    assert network.min_variance is not None and torch.all(q.variance_BKD == network.min_variance)
    assert build(small_cell("ae"))[0].min_variance is None
