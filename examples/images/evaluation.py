"""Measures a trained network: accuracy of three classifiers on two embeddings, and reconstruction (Sec. 3.1, 3.3, 3.5). N images."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from nemo_cmim.types import Posterior

from .cell import Cell
from .data import Images, Part, pixels
from .network import ImageNetwork

__all__ = ["CLASSIFIERS", "EMBEDDINGS", "accuracies", "embed", "encode", "evaluate", "log_likelihoods"]

CLASSIFIERS = ("knn_cosine", "knn_euclidean", "mlp")
EMBEDDINGS = ("mean", "informative")
_AT_ONCE = 100  # images
_MLP_BATCH = 200  # scikit-learn's default


def evaluate(network: ImageNetwork, images: Images, cell: Cell) -> dict[str, Any]:
    """Measures the network on the test images.

    Classifiers learn from at most `train_images` training images and are tested on at most `test_images` test images. Both are in a random
    order that is the same for all cells of a set, so that all cells are measured with the same images.

    Returns:
        `accuracy` by embedding and classifier, `log_likelihood` (see `log_likelihoods`; without a decoder None), and the numbers of images
        `classifier_images` and `tested_images`.
    """
    settings = cell.settings
    train, test = images.train.take(slice(settings.train_images)), images.test.take(slice(settings.test_images))
    q_train, q_test = encode(network, train), encode(network, test)
    has_decoder = network.decoder is not None
    accuracy = {}
    for kind in EMBEDDINGS if has_decoder else EMBEDDINGS[:1]:
        train_ND, test_ND = embed(network, q_train, kind), embed(network, q_test, kind)
        accuracy[kind] = accuracies(train_ND, test_ND, train.labels_N.numpy(), test.labels_N.numpy(), cell)
    return {
        "accuracy": accuracy,
        "log_likelihood": log_likelihoods(network, test, q_test, cell.seed) if has_decoder else None,
        "classifier_images": len(train),
        "tested_images": len(test),
    }


def accuracies(
    train_ND: NDArray[np.float32],
    test_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    test_labels_N: NDArray[np.int64],
    cell: Cell,
) -> dict[str, float]:
    """Share of test images that each classifier labels correctly (Sec. D.1).

    KNN with k = 5, cosine and Euclidean; an MLP with 400 hidden units, Adam 1e-3, and about `mlp_steps` updates. Otherwise scikit-learn's
    defaults: no standardisation, batches of 200, and the MLP stops early if its training loss does not fall for 10 epochs.
    """
    neighbours = min(5, len(train_ND))
    epochs = max(1, round(cell.settings.mlp_steps / math.ceil(len(train_ND) / min(_MLP_BATCH, len(train_ND)))))
    models = {
        "knn_cosine": KNeighborsClassifier(neighbours, metric="cosine"),
        "knn_euclidean": KNeighborsClassifier(neighbours),
        "mlp": MLPClassifier((400,), learning_rate_init=1e-3, max_iter=epochs, random_state=cell.seed),
    }
    found = {}
    for name, model in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of updates is given
            found[name] = float(model.fit(train_ND, labels_N).score(test_ND, test_labels_N))
    return found


@torch.no_grad()
def encode(network: ImageNetwork, part: Part) -> Posterior:
    """q(z|x) of all images of a part, each field [N, 1, 64]."""
    found = [network.encode(pixels(some)) for some in part.images_NP.split(_AT_ONCE)]
    return Posterior(torch.cat([one.mean_BKD for one in found]), torch.cat([one.variance_BKD for one in found]))


@torch.no_grad()
def embed(network: ImageNetwork, posterior: Posterior, kind: str) -> NDArray[np.float32]:
    """Embeddings [N, 64] ("mean", of q(z|x)) or [N, K] ("informative": h before the logits, with z the mean)."""
    mean_N1Z = posterior.mean_BKD
    if kind == "mean":
        return mean_N1Z.flatten(1).numpy()
    return torch.cat([network.hidden(some) for some in mean_N1Z.split(_AT_ONCE)]).numpy()


@torch.no_grad()
def log_likelihoods(network: ImageNetwork, part: Part, posterior: Posterior, seed: int) -> dict[str, float]:
    """Mean over images of log p(x|z), nats per image: with z the mean, and with one draw of z from q(z|x) (Fig. 5b)."""
    noise = torch.randn(posterior.mean_BKD.shape, generator=torch.Generator().manual_seed(seed))
    found = {}
    for name, z_N1Z in (("mean", posterior.mean_BKD), ("drawn", posterior.sample(noise))):
        pairs = zip(part.images_NP.split(_AT_ONCE), z_N1Z.split(_AT_ONCE))
        found[name] = float(torch.cat([network.log_p_x_given_z(pixels(x), z) for x, z in pairs]).double().mean())
    return found
