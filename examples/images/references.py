"""References that need no training, to see what training adds: an untrained network, the pixels, the mean image. N images, P pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nemo_cmim.losses import log_bernoulli

from .cell import Cell, build
from .data import Images, pixels
from .evaluation import accuracies, evaluate

__all__ = ["evaluate_reference", "log_likelihood_of_mean_image"]


def evaluate_reference(cell: Cell, images: Images, device: torch.device) -> dict[str, Any]:
    """Evaluates a reference with the same images and classifiers as the networks.

    Args:
        cell: A cell of "untrained" or "pixels".
        images: The image set.
        device: Device of the network.

    Returns:
        "untrained": the result of `evaluate` for cMIM's network with its initial weights. "pixels": `accuracy` of the pixels as vectors,
        as `evaluate` reports that of embeddings, `commonest_class`, the accuracy of always the class with the most training images, and
        `mean_image`, see `log_likelihood_of_mean_image`.
    """
    if cell.objective == "untrained":
        return evaluate(build(cell)[0].to(device), images, cell)
    train, test = images.train.first(cell.settings.train_images), images.test.first(cell.settings.test_images)
    vectors, test_vectors = (pixels(part.images_NP).numpy() for part in (train, test))
    return {
        "accuracy": {"pixels": accuracies(vectors, test_vectors, train.labels_N.numpy(), test.labels_N.numpy(), cell)},
        "commonest_class": float((test.labels_N == train.labels_N.mode().values).double().mean()),
        "mean_image": log_likelihood_of_mean_image(images.train.images_NP, test.images_NP),
        "classifier_images": len(train),
        "tested_images": len(test),
    }


def log_likelihood_of_mean_image(train_NP: Tensor, test_NP: Tensor) -> float:
    """Bernoulli log-likelihood of test images, nats per image, if each pixel has its mean over training images as probability.

    A network whose latents carry no information can reach it. One grey image (0.5) is added, so that no probability is 0 or 1.

    Args:
        train_NP: All training images, uint8.
        test_NP: Test images, uint8.
    """
    mean_P = (train_NP.sum(0, dtype=torch.int64) / 255 + 0.5) / (len(train_NP) + 1)
    x_NP = pixels(test_NP)
    return float(log_bernoulli(mean_P.logit().expand_as(x_NP), x_NP).double().mean())
