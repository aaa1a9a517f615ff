"""Training of one member.

Shape letters: M distinct molecules, N rows, B rows in a batch, T targets, W outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UnknownTokenError
from ...inference import CMIMModel
from ...inference.batching import Progress
from ...molecules import randomized_smiles
from .checkpoint import Checkpoint
from .head import Outputs, loss
from .member import Member
from .recipe import Recipe
from .states import is_of_decoder, states

__all__ = ["Rows", "train_member"]

_BUCKET = 16  # batches whose molecules are sorted by length together: little padding, and still random batches


class Rows(NamedTuple):
    """The rows of a fit.

    Attributes:
        tokens: Ids of M distinct molecules.
        molecule_of_row: int64 [N], index into `tokens`.
        targets_NT: float64, standardised values or class codes; NaN is missing.
        start_NW: float64, what the outputs of the head are added to.
        outputs: What a head computes.
        class_weights_W: Weight of each class in the loss; None: 1.
    """

    tokens: list[list[int]]
    molecule_of_row: NDArray[np.int64]
    targets_NT: NDArray[np.float64]
    start_NW: NDArray[np.float64]
    outputs: Outputs
    class_weights_W: NDArray[np.float64] | None = None

    def tokens_of(self, rows: NDArray[np.int64]) -> list[list[int]]:
        """Ids of the molecules of rows."""
        return [self.tokens[molecule] for molecule in self.molecule_of_row[rows]]

    def loss(self, head_BW: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """The loss of a head's outputs for rows; see `head.loss`."""
        start_BW, targets_BT = (
            torch.from_numpy(part[rows]).float().to(head_BW.device) for part in (self.start_NW, self.targets_NT)
        )
        weights_W = None if self.class_weights_W is None else torch.from_numpy(self.class_weights_W).float().to(head_BW.device)
        return loss(start_BW + head_BW, targets_BT, self.outputs, weights_W)


class _Run:
    """The state of a training that continues from epoch to epoch."""

    def __init__(self, member: Member, recipe: Recipe, steps: int) -> None:
        self.member, self.recipe, self.steps = member, recipe, steps
        self.epoch, self.step, self.waited, self.lowest = 0, 0, 0, math.inf
        self.best = member.weights()
        rates: dict[float, list[tuple[str, Tensor]]] = {}
        for name, parameter in member.trained().items():
            place, _, rest = name.partition(".")
            rate = recipe.head_rate if place == "head" else recipe.decoder_rate if is_of_decoder(rest) else recipe.encoder_rate
            rates.setdefault(rate, []).append((name, parameter))
        groups = []
        for rate, named in rates.items():
            for is_matrix in (True, False):
                some = [parameter for _, parameter in named if (parameter.dim() > 1) == is_matrix]
                groups.append({"params": some, "rate": rate, "weight_decay": recipe.weight_decay * is_matrix})
        self.optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0)

    def update(self, value: Tensor) -> None:
        """One step of the optimiser."""
        rising, falling = (self.step + 1) / max(1, self.recipe.warm_up * self.steps), 1 - self.step / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * min(1.0, rising, falling / max(1e-12, 1 - self.recipe.warm_up))
        self.optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(list(self.member.trained().values()), self.recipe.max_gradient_norm)
        self.optimiser.step()
        self.step += 1

    def judge(self, value: float | None) -> None:
        """Ends an epoch: keeps the best weights, by validation loss; without validation, the last."""
        self.epoch += 1
        if value is None or value < self.lowest:
            self.best, self.waited = self.member.weights(), 0
            self.lowest = math.inf if value is None else value
        else:
            self.waited += 1

    @property
    def is_over(self) -> bool:
        """Whether there are no more epochs."""
        return self.epoch == self.recipe.epochs or self.waited >= self.recipe.patience

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers, for `restore`."""
        tensors = {f"now.{name}": tensor for name, tensor in self.member.weights().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for number, of_parameter in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": tensor.cpu() for name, tensor in of_parameter.items()}
        lowest = None if self.lowest == math.inf else self.lowest
        return tensors, {"epoch": self.epoch, "step": self.step, "waited": self.waited, "lowest": lowest}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Continues after the epoch in which `state` was called."""
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "adam": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.member.load(parts["now"])
        self.best = parts["best"]
        adam = self.optimiser.state_dict()
        for name, tensor in parts["adam"].items():
            number, _, rest = name.partition(".")
            adam["state"].setdefault(int(number), {})[rest] = tensor
        self.optimiser.load_state_dict(adam)
        self.epoch, self.step, self.waited = numbers["epoch"], numbers["step"], numbers["waited"]
        self.lowest = math.inf if numbers["lowest"] is None else numbers["lowest"]


def train_member(
    model: CMIMModel,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Tensor]:
    """Fine-tunes one copy of a model's network.

    Args:
        model: The model; it is not changed.
        rows: Molecules and targets.
        recipe: Settings.
        seed: Seed of the validation molecules, the order, dropout, the head's first weights and randomized SMILES.
        checkpoint: Keeps the last epoch under the name `epoch`, and continues from it.
        progress: Called after each epoch with its number and the maximum number.

    Returns:
        The weights of the epoch with the lowest validation loss; see `Member.weights`.
    """
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        member = Member.new(model, recipe, rows.outputs)
        training, validating = _sides(rows, recipe.validation, seed)
        run = _Run(member, recipe, recipe.epochs * math.ceil(len(training) / recipe.batch_size))
        kept = checkpoint.read("epoch") if checkpoint else None
        if kept:
            run.restore(*kept)
        else:
            member.head.standardise(member.vectors(rows.tokens))
            run.best = member.weights()
            run.lowest = _validation_loss(member, rows, validating) if len(validating) else math.inf
        while not run.is_over:
            _epoch(run, rows, training, (seed, run.epoch))
            run.judge(_validation_loss(member, rows, validating) if len(validating) else None)
            if checkpoint:
                checkpoint.write("epoch", *run.state())
            progress(run.epoch, recipe.epochs)
    return run.best


def _epoch(run: _Run, rows: Rows, training: NDArray[np.int64], seed: tuple[int, int]) -> None:
    """One pass over the training rows. Its random numbers depend on the seed and the epoch only."""
    member, recipe = run.member, run.recipe
    rng = np.random.default_rng(seed)
    torch.manual_seed(int(rng.integers(2**62)))
    member.train(True)
    spelled = _spelled(member.model, rows.tokens_of(training), recipe.augment, rng)
    for batch in _batches([len(ids) for ids in spelled], recipe.batch_size, rng):
        x = states(member.network, member.model.tokenizer.vocabulary, [spelled[place] for place in batch], member.spec)
        run.update(rows.loss(member.head(x), training[batch]))


def _sides(rows: Rows, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on and to validate on; all rows of a molecule are on the same side."""
    molecules = len(rows.tokens)
    count = min(math.ceil(fraction * molecules), molecules - 1)
    held_out = np.random.default_rng((seed, molecules)).permutation(molecules)[:count]
    is_validation = np.isin(rows.molecule_of_row, held_out)
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def _spelled(model: CMIMModel, tokens: list[list[int]], probability: float, rng: np.random.Generator) -> list[list[int]]:
    """Some molecules as randomized SMILES. One that the model cannot read, or that is too long, is left as it was."""
    spelled = list(tokens)
    for place in np.flatnonzero(rng.random(len(tokens)) < probability):
        written = randomized_smiles(model.tokenizer.decode(tokens[place]), 1, int(rng.integers(1, 2**31)))
        try:
            ids = model.tokenizer.encode(written[0]) if written else []
        except UnknownTokenError:
            continue
        if 0 < len(ids) <= model.config.network.max_tokens:
            spelled[place] = ids
    return spelled


def _batches(lengths: list[int], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Random batches of molecules of similar length, in random order."""
    order, lengths_N = rng.permutation(len(lengths)), np.asarray(lengths)
    batches = []
    for start in range(0, len(order), size * _BUCKET):
        bucket = order[start : start + size * _BUCKET]
        bucket = bucket[np.argsort(lengths_N[bucket], kind="stable")]
        batches += [bucket[first : first + size] for first in range(0, len(bucket), size)]
    for number in rng.permutation(len(batches)):
        yield batches[number]


def _validation_loss(member: Member, rows: Rows, validating: NDArray[np.int64]) -> float:
    return float(rows.loss(member.outputs(rows.tokens_of(validating)), validating))
