"""Measures a trained network: accuracy of three classifiers on two embeddings, and reconstruction (Sec. 3.1, 3.3, 3.5). N images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from .cell import Cell
from .data import Images, Part, pixels
from .network import ImageNetwork

__all__ = ["CLASSIFIERS", "EMBEDDINGS", "accuracies", "embed", "evaluate", "log_likelihoods"]

CLASSIFIERS = ("knn_cosine", "knn_euclidean", "mlp")
EMBEDDINGS = ("mean", "informative")
_AT_ONCE = 500  # images
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
    has_decoder = network.decoder is not None
    accuracy = {
        kind: accuracies(
            embed(network, train, kind), train.labels_N.numpy(), embed(network, test, kind), test.labels_N.numpy(), cell
        )
        for kind in (EMBEDDINGS if has_decoder else EMBEDDINGS[:1])
    }
    return {
        "accuracy": accuracy,
        "log_likelihood": log_likelihoods(network, test, cell.seed) if has_decoder else None,
        "classifier_images": len(train),
        "tested_images": len(test),
    }


def accuracies(
    train_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    test_ND: NDArray[np.float32],
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
def embed(network: ImageNetwork, part: Part, kind: str) -> NDArray[np.float32]:
    """Embeddings [N, 64] ("mean", of q(z|x)) or [N, K] ("informative": h before the logits, with z the mean)."""

    def of(x_BP: Tensor) -> Tensor:
        mean_B1Z = network.encode(x_BP).mean_BKD
        return mean_B1Z.flatten(1) if kind == "mean" else network.hidden(mean_B1Z)

    return _in_parts(of, part).numpy()


@torch.no_grad()
def log_likelihoods(network: ImageNetwork, part: Part, seed: int) -> dict[str, float]:
    """Mean over images of log p(x|z), nats per image: with z the mean, and with one draw of z from q(z|x) (Fig. 5b)."""
    generator = torch.Generator().manual_seed(seed)

    def of(x_BP: Tensor) -> Tensor:
        posterior = network.encode(x_BP)
        drawn = posterior.sample(torch.randn(posterior.mean_BKD.shape, generator=generator))
        return torch.stack([network.log_p_x_given_z(x_BP, z) for z in (posterior.mean_BKD, drawn)], dim=1)

    mean, drawn = _in_parts(of, part).double().mean(0).tolist()
    return {"mean": mean, "drawn": drawn}


def _in_parts(function: Callable[[Tensor], Tensor], part: Part) -> Tensor:
    return torch.cat([function(pixels(some)) for some in part.images_NP.split(_AT_ONCE)])
