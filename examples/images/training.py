"""Trains a cell: Adam with WSD, affine augmentation, the weights with the lowest validation loss (Sec. 3.1, D.1).

All random numbers of a step depend only on the seed and the index of the step (see `draws`), so a run that is resumed from a checkpoint
has the same result as one that was not interrupted. B images, P pixels, Z latent dimensions.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cmim.errors import DataError, DivergenceError
from nemo_cmim.losses import Objective
from nemo_cmim.training.schedule import warmup_stable_decay
from nemo_cmim.types import Posterior

from .augmentation import random_affine
from .cell import Cell, build
from .data import Images, pixels
from .draws import Order, generator
from .network import PIXELS, ImageNetwork, encode_all, in_parts
from .results import save_tensors

__all__ = ["Trained", "check_counts", "loss_of", "step_time", "train", "validate"]

_WARMUP = _DECAY = 0.1  # fractions of the steps
_CPU = torch.device("cpu")


@dataclass
class Trained:
    """A trained cell.

    Attributes:
        network: With the weights of the lowest validation loss.
        best_step: Number of steps after which these were reached.
        history: Of each validation the number of steps as `step`, and the values of `validate`.
        seconds: Time of the processor for all steps and validations, interruptions excluded.
    """

    network: ImageNetwork
    best_step: int
    history: list[dict[str, Any]]
    seconds: float


def check_counts(cell: Cell, images: Images) -> None:
    """Checks that a set has enough images to train a cell.

    Raises:
        DataError: If there are fewer training images than a batch has, or fewer than two validation images.
    """
    if len(images.train) < cell.batch_size or len(images.valid.first(cell.settings.valid_images)) < 2:
        raise DataError(
            f"{cell.data} has {len(images.train)} training and {len(images.valid)} validation images, of which at most "
            f"{cell.settings.valid_images or 'all'} are used: too few for {cell.name}. Use a smaller batch size, at least 2 validation "
            "images, or another set."
        )


def train(cell: Cell, images: Images, checkpoint: Path | None = None, device: torch.device = _CPU) -> Trained:
    """Trains a cell; resumes from `checkpoint` if it exists, and writes it at each validation.

    Raises:
        DataError: If there are too few images (see `check_counts`), or the checkpoint is of different images.
        DivergenceError: If a loss is not finite.
    """
    check_counts(cell, images)
    settings = cell.settings
    network, objective = build(cell)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    state: dict[str, Any] = {"step": 0, "best": {}, "best_step": 0, "history": [], "seconds": 0.0}
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        if saved["images"] != images.sha256:
            raise DataError(
                f"The checkpoint {checkpoint} is of different images of {cell.data} (SHA-256 {saved['images'][:12]}) than these "
                f"({images.sha256[:12]}). Use the folder of images it was started with, or remove the checkpoint."
            )
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    train_NP, valid_NP = images.train.images_NP.to(device), pixels(images.valid.first(settings.valid_images).images_NP.to(device))
    at = {max(1, round(settings.steps * (i + 1) / settings.validations)) for i in range(settings.validations)}
    started = time.process_time() - state["seconds"]
    order = Order(len(train_NP), cell.batch_size, cell.seed)
    for step in range(state["step"], settings.steps):
        x_BP = pixels(train_NP[order.batch(step).to(device)])
        loss = _training_loss(network, objective, x_BP, generator(cell.seed, "step", step))
        if not bool(torch.isfinite(loss)):
            raise DivergenceError(f"{cell.name}: the loss is {float(loss.detach())} at step {step}.")
        _update(optimizer, loss, settings.lr * warmup_stable_decay(step, settings.steps, warmup=_WARMUP, decay=_DECAY))
        if step + 1 in at:
            found = validate(network, objective, valid_NP, cell.batch_size, cell.seed)
            if not math.isfinite(found["loss"]):
                raise DivergenceError(f"{cell.name}: the validation loss is {found['loss']} after {step + 1} steps.")
            if not state["history"] or found["loss"] < min(earlier["loss"] for earlier in state["history"]):
                state["best"] = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                state["best_step"] = step + 1
            state["history"].append({"step": step + 1, **found})
            state |= {"step": step + 1, "seconds": time.process_time() - started}
            if checkpoint is not None:
                content = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                save_tensors(checkpoint, content | {"state": state, "images": images.sha256})
    network.load_state_dict(state["best"])
    return Trained(network, state["best_step"], state["history"], state["seconds"])


def step_time(cell: Cell, seconds: float) -> float:
    """Core-seconds of a training step with random pixels; measured for about `seconds`, after one step that does not count."""
    network, objective = build(cell)
    x_BP = torch.rand(cell.batch_size, PIXELS, generator=generator(cell.seed, "step"))
    optimizer = torch.optim.Adam(network.parameters(), lr=cell.settings.lr, fused=True)
    begin, steps = 0.0, -1
    while steps < 1 or time.process_time() - begin < seconds:
        _update(optimizer, _training_loss(network, objective, x_BP, generator(cell.seed, "step", steps + 1)), cell.settings.lr)
        steps += 1
        if steps == 0:
            begin = time.process_time()
    return (time.process_time() - begin) / steps


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def loss_of(network: ImageNetwork, objective: Objective, x_BP: Tensor, positive_BP: Tensor | None, noise_B1Z: Tensor) -> Tensor:
    """The training loss of a batch, nats per image.

    Args:
        network: The network.
        objective: The package's objective.
        x_BP: Pixels.
        positive_BP: A second view of each image, for objectives that need one.
        noise_B1Z: Standard normal noise of z. It has no effect without a variance of q(z|x).
    """
    posterior, positive_B1Z = network.encode(x_BP if positive_BP is None else torch.cat([x_BP, positive_BP])), None
    if positive_BP is not None:  # one call for both views takes less time than two
        (mean, positive_B1Z), (variance, _) = (field.chunk(2) for field in posterior[:2])
        posterior = Posterior(mean, variance)
    z_B1Z = posterior.sample(noise_B1Z)
    log_p_B = network.log_p_x_given_z(x_BP, z_B1Z) if objective.composition.decodes else None
    loss: Tensor = objective(log_p_B, z_B1Z, posterior, positive_B1Z).loss
    return loss


def _training_loss(network: ImageNetwork, objective: Objective, x_BP: Tensor, draws: torch.Generator) -> Tensor:
    view_BP = random_affine(x_BP, draws)
    positive_BP = random_affine(x_BP, draws) if objective.composition.needs_positive else None
    return loss_of(network, objective, view_BP, positive_BP, _noise(network, len(x_BP), draws))


def _noise(network: ImageNetwork, count: int, draws: torch.Generator) -> Tensor:
    return torch.randn(count, 1, network.to_latent.out_features, generator=draws).to(network.device)


@torch.no_grad()
def validate(network: ImageNetwork, objective: Objective, x_NP: Tensor, batch_size: int, seed: int) -> dict[str, float]:
    """Loss of validation images and its terms before they are weighted, by name (see `losses.LossTerms`), nats per image.

    Batches have the size of the training's, since contrastive terms depend on it. The images are not augmented, except the second view
    of InfoNCE. Noise and second view are the same at each validation. The network computes many images at once; batches are formed of
    latents. Images of an incomplete last batch are left out, unless it is the only one.
    """
    draws, composition = generator(seed, "validation"), objective.composition
    noise_N1Z = _noise(network, len(x_NP), draws)
    positive = encode_all(network, random_affine(x_NP, draws)).mean_BKD if composition.needs_positive else None
    posterior = encode_all(network, x_NP)
    z_N1Z = posterior.sample(noise_N1Z)
    log_p_N = in_parts(network.log_p_x_given_z, x_NP, z_N1Z) if composition.decodes else None
    size = min(batch_size, len(x_NP)) if composition.is_contrastive else len(x_NP)
    of_batches = []
    for begin in range(0, len(x_NP) - size + 1, size):
        rows = slice(begin, begin + size)
        log_p = None if log_p_N is None else log_p_N[rows]
        of_batch = Posterior(posterior.mean_BKD[rows], posterior.variance_BKD[rows])
        out = objective(log_p, z_N1Z[rows], of_batch, None if positive is None else positive[rows])
        terms = [getattr(out.terms, f"{name}_B").mean() for name in objective.weights]
        of_batches.append(torch.stack([out.loss, *terms]))
    return dict(zip(("loss", *objective.weights), torch.stack(of_batches).mean(0).tolist()))
