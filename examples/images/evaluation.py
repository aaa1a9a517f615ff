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
from torch import Tensor

from nemo_cmim.types import Posterior

from .cell import Cell
from .data import Images, pixels
from .draws import generator
from .network import ImageNetwork, encode_all, in_parts

__all__ = ["CLASSIFIERS", "EMBEDDINGS", "accuracies", "embed", "evaluate", "log_likelihoods", "posterior_summary"]

CLASSIFIERS = ("knn_cosine", "knn_euclidean", "mlp")
EMBEDDINGS = ("mean", "informative")
_MLP_BATCH = 200  # scikit-learn's default
_NEAR_FLOOR = 1.01


def evaluate(network: ImageNetwork, images: Images, cell: Cell) -> dict[str, Any]:
    """Measures the network on the test images.

    Classifiers learn from at most `train_images` training images and are tested on at most `test_images` test images. Both are in a random
    order that is the same for all cells of a set, so that all cells are measured with the same images.

    Returns:
        `accuracy` by embedding and classifier, `log_likelihood` (see `log_likelihoods`; None without a decoder), `posterior` (see
        `posterior_summary`), and the numbers of images `classifier_images` and `tested_images`.
    """
    train, test = images.train.first(cell.settings.train_images), images.test.first(cell.settings.test_images)
    x_train, x_test = (pixels(part.images_NP).to(network.device) for part in (train, test))
    q_train, q_test = encode_all(network, x_train), encode_all(network, x_test)
    has_decoder = network.decoder is not None
    accuracy = {}
    for kind in EMBEDDINGS if has_decoder else EMBEDDINGS[:1]:
        train_ND, test_ND = embed(network, q_train, kind), embed(network, q_test, kind)
        accuracy[kind] = accuracies(train_ND, test_ND, train.labels_N.numpy(), test.labels_N.numpy(), cell)
    return {
        "accuracy": accuracy,
        "log_likelihood": log_likelihoods(network, x_test, q_test, cell.seed) if has_decoder else None,
        "posterior": posterior_summary(q_test, network.min_variance),
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
    """Fraction of test images that each classifier labels correctly (Sec. D.1).

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


def embed(network: ImageNetwork, posterior: Posterior, kind: str) -> NDArray[np.float32]:
    """Embeddings [N, 64] ("mean", of q(z|x)) or [N, K] ("informative": h before the logits, with z the mean)."""
    mean_N1Z = posterior.mean_BKD
    found_ND = mean_N1Z.flatten(1) if kind == "mean" else in_parts(network.hidden, mean_N1Z)
    return found_ND.cpu().numpy()


def log_likelihoods(network: ImageNetwork, x_NP: Tensor, posterior: Posterior, seed: int) -> dict[str, float]:
    """Mean over images of log p(x|z), nats per image: with z the mean, and with one draw of z from q(z|x) (Fig. 5b)."""
    noise_N1Z = torch.randn(posterior.mean_BKD.shape, generator=generator(seed, "test")).to(x_NP.device)
    latents = {"mean": posterior.mean_BKD, "drawn": posterior.sample(noise_N1Z)}
    return {name: float(in_parts(network.log_p_x_given_z, x_NP, z_N1Z).double().mean()) for name, z_N1Z in latents.items()}


def posterior_summary(posterior: Posterior, min_variance: float | None) -> dict[str, float | None]:
    """Shows a collapse of q(z|x), to the prior or to points.

    Args:
        posterior: q(z|x) of many images.
        min_variance: The smallest variance that the network allows; None without a variance.

    Returns:
        `median_variance` over images and dimensions, `at_floor`, the fraction of variances up to 1.01 times the smallest (both None
        without a variance), and `sd_of_means`, the standard deviation of the mean over images, averaged over dimensions.
    """
    variance = posterior.variance_BKD
    return {
        "median_variance": None if min_variance is None else float(variance.median()),
        "at_floor": None if min_variance is None else float((variance <= _NEAR_FLOOR * min_variance).float().mean()),
        "sd_of_means": float(posterior.mean_BKD.std(dim=0, correction=0).mean()),
    }
