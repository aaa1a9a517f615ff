"""Trains a cell: Adam with WSD, affine augmentation, the weights with the lowest validation loss (Sec. 3.1, D.1).

All random numbers of a step depend only on the seed and the index of the step, so a run that goes on from a checkpoint has the same
result as one that was not interrupted. B images, P pixels, Z latent dimensions.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cmim.errors import DataError, DivergenceError
from nemo_cmim.files import atomic_write
from nemo_cmim.losses import Objective
from nemo_cmim.training.schedule import warmup_stable_decay
from nemo_cmim.types import Posterior

from .augmentation import random_affine
from .cell import Cell, build
from .data import Images, Part, pixels
from .network import PIXELS, ImageNetwork

__all__ = ["Trained", "loss_of", "step_time", "train", "validation_loss"]

_ENCODED_AT_ONCE = 100  # images
_VALIDATION = -1  # in place of the index of a step


@dataclass
class Trained:
    """A trained cell.

    Attributes:
        network: With the weights of the lowest validation loss, in evaluation mode.
        best_step: Number of steps after which these were reached.
        history: Number of steps and validation loss (nats per image) of each validation.
        seconds: Time of all steps and validations, interruptions excluded.
    """

    network: ImageNetwork
    best_step: int
    history: list[tuple[int, float]]
    seconds: float


def train(cell: Cell, images: Images, checkpoint: Path | None = None) -> Trained:
    """Trains a cell; goes on from `checkpoint` if it exists, and writes it at each validation.

    Raises:
        DataError: If there are fewer training images than a batch has, or fewer than two validation images.
        DivergenceError: If a loss is not finite.
    """
    settings = cell.settings
    if len(images.train) < cell.batch_size or len(images.valid) < 2:
        raise DataError(
            f"{cell.data} has {len(images.train)} training and {len(images.valid)} validation images: too few for {cell.name}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        network, objective = build(cell)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    state: dict[str, Any] = {"step": 0, "best": {}, "best_step": 0, "history": [], "seconds": 0.0}
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    valid = images.valid.take(slice(settings.valid_images))
    at = {max(1, round(settings.steps * (i + 1) / settings.validations)) for i in range(settings.validations)}
    started = time.monotonic() - state["seconds"]
    order = _Order(len(images.train), cell.batch_size, cell.seed)
    for step in range(state["step"], settings.steps):
        generator = _generator(cell.seed, step)
        x_BP = pixels(images.train.images_NP[order.batch(step)])
        loss = _training_loss(network, objective, x_BP, generator)
        if not bool(torch.isfinite(loss)):
            raise DivergenceError(f"{cell.name}: the loss is {float(loss.detach())} at step {step}.")
        _update(optimizer, loss, settings.lr * warmup_stable_decay(step, settings.steps))
        if step + 1 in at:
            found = validation_loss(network, objective, valid, cell.batch_size, cell.seed)
            if not state["history"] or found < min(value for _, value in state["history"]):
                state["best"] = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                state["best_step"] = step + 1
            state["history"].append((step + 1, found))
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            if checkpoint is not None:
                _save(checkpoint, {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "state": state})
    network.load_state_dict(state["best"])
    history = [(int(step), float(loss)) for step, loss in state["history"]]
    return Trained(network.eval(), state["best_step"], history, state["seconds"])


def step_time(cell: Cell, seconds: float) -> float:
    """Core-seconds of a training step with random pixels; measured for about `seconds`, after one step that does not count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        network, objective = build(cell)
        x_BP = torch.rand(cell.batch_size, PIXELS)
    optimizer = torch.optim.Adam(network.parameters(), lr=cell.settings.lr, fused=True)
    begin, steps = 0.0, -1
    while steps < 1 or time.process_time() - begin < seconds:
        _update(optimizer, _training_loss(network, objective, x_BP, _generator(cell.seed, steps + 1)), cell.settings.lr)
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
        noise_B1Z: Standard normal noise of z; not used without a variance of q(z|x).
    """
    posterior, positive_B1Z = network.encode(x_BP if positive_BP is None else torch.cat([x_BP, positive_BP])), None
    if positive_BP is not None:  # one call for both views takes less time than two
        (mean, positive_B1Z), (variance, _) = (field.chunk(2) for field in posterior[:2])
        posterior = Posterior(mean, variance)
    z_B1Z = posterior.sample(noise_B1Z) if objective.composition.is_stochastic else posterior.mean_BKD
    log_p_B = network.log_p_x_given_z(x_BP, z_B1Z) if objective.composition.decodes else None
    loss: Tensor = objective(log_p_B, z_B1Z, posterior, positive_B1Z).loss
    return loss


def _training_loss(network: ImageNetwork, objective: Objective, x_BP: Tensor, generator: torch.Generator) -> Tensor:
    view_BP = random_affine(x_BP, generator)
    positive_BP = random_affine(x_BP, generator) if objective.composition.needs_positive else None
    noise = torch.randn(len(x_BP), 1, network.to_latent.out_features, generator=generator)
    return loss_of(network, objective, view_BP, positive_BP, noise)


@torch.no_grad()
def validation_loss(network: ImageNetwork, objective: Objective, valid: Part, batch_size: int, seed: int) -> float:
    """Loss of validation images, nats per image, in batches of the training's size, since contrastive terms depend on it.

    The images are not augmented, except the second view of InfoNCE. Noise and second view are the same at each validation. The network
    computes many images at once; batches are formed of latents. Images of an incomplete last batch are left out, unless it is the only one.
    """
    network.eval()
    generator = _generator(seed, _VALIDATION)
    x_NP = pixels(valid.images_NP)
    noise = torch.randn(len(x_NP), 1, network.to_latent.out_features, generator=generator)
    second_NP = random_affine(x_NP, generator) if objective.composition.needs_positive else None
    mean, variance = _encode(network, x_NP)
    z = mean + variance.sqrt() * noise if objective.composition.is_stochastic else mean
    positive = None if second_NP is None else _encode(network, second_NP)[0]
    log_p = None
    if objective.composition.decodes:
        chunks = range(0, len(x_NP), _ENCODED_AT_ONCE)
        log_p = torch.cat([network.log_p_x_given_z(*(t[i : i + _ENCODED_AT_ONCE] for t in (x_NP, z))) for i in chunks])
    is_contrastive = objective.composition.is_contrastive
    size = min(batch_size, len(x_NP)) if is_contrastive else len(x_NP)
    losses = []
    for begin in range(0, len(x_NP) - size + 1, size):
        rows = slice(begin, begin + size)
        of_rows = (None if t is None else t[rows] for t in (log_p, z))
        posterior = Posterior(mean[rows], variance[rows])
        losses.append(objective(*of_rows, posterior, None if positive is None else positive[rows]).loss)
    network.train()
    return float(torch.stack(losses).mean())


def _encode(network: ImageNetwork, x_NP: Tensor) -> tuple[Tensor, Tensor]:
    found = [network.encode(some) for some in x_NP.split(_ENCODED_AT_ONCE)]
    return torch.cat([one.mean_BKD for one in found]), torch.cat([one.variance_BKD for one in found])


class _Order:
    """Rows of the batches: epochs of random order, without an incomplete last batch."""

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.per_epoch = images // batch_size
        self._epoch, self._permutation = -1, torch.empty(0)

    def batch(self, step: int) -> Tensor:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = torch.randperm(self.images, generator=_generator(self.seed, _VALIDATION - 1 - epoch))
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size]


def _generator(seed: int, place: int) -> torch.Generator:
    """Random numbers of one step (place from 0), of validation (-1), or of the order of an epoch (-2 and less)."""
    return torch.Generator().manual_seed((seed + 1) * 2**40 + place)


def _save(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as staging:
        staging.write_bytes(buffer.getvalue())
