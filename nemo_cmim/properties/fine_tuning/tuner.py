"""Fine-tuned networks as a predictor of measured values.

Shape letters: N rows, M distinct molecules, T targets, C_t classes of a target.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from ...arguments import check_choice, check_integer, check_seed
from ...errors import CheckpointError, ConfigError, DataError
from ...inference import CMIMModel
from ...inference.batching import Progress, batch_limits
from ...inference.capabilities import embedding_spec
from ...inference.inputs import InputOptions, tokenize
from ...inference.removed import fingerprint_hint
from ...inference.shipped import resolve
from ...inference.vectors import vectors
from .checkpoint import Checkpoint
from .frozen import FrozenHead, fit_frozen
from .head import Outputs, balanced_weights
from .member import Member
from .recipe import Recipe
from .training import Rows, train_member

__all__ = ["FineTuner"]


class FineTuner:
    """Trains the network of a model together with a head, several times with other seeds, and averages the predictions.

    A prediction depends only on the molecule, not on its batch. The model itself is not changed.

    Args:
        task: "regression" or "classification".
        model: A loaded model in fp32, the name of a shipped model, or a path; None: the default shipped model.
        recipe: What is trained, and how.
        members: Number of networks that are trained and averaged.
        classes: For classification: number of classes of each target; None: the largest code in `fit` + 1.
        batch_size: Maximum number of molecules in a batch of the prediction; None: chosen for speed.
        device: For example "cpu"; None: a GPU if there is one, else the CPU.
        checkpoint: Folder in which `fit` keeps each finished member and the last epoch. The same `fit` with the same folder continues
            there, with the same result as without interruption.
        random_state: Seed of the first member; the others use the numbers after it.

    Attributes:
        frozen_: The head on the model as it is, which the members correct; None without `Recipe.start`.
        members_: The changed weights of each member, by name.
        outputs_: Task and number of outputs of each target.
        centre_, scale_: float64 [T], mean and standard deviation of each target in `fit`; 0 and 1 for classes.

    Raises:
        ConfigError: If an argument is unknown or out of range.
    """

    def __init__(
        self,
        task: str = "regression",
        model: str | os.PathLike[str] | CMIMModel | None = None,
        *,
        recipe: Recipe | None = None,
        members: int = 3,
        classes: Sequence[int] | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        random_state: int = 0,
    ) -> None:
        check_choice("task", task, ("regression", "classification"))
        check_integer("members", members)
        check_integer("batch_size", batch_size, optional=True)
        check_integer("random_state", random_state, 0)
        check_seed(random_state)
        self.task, self.model, self.recipe, self.members = task, model, recipe or Recipe(), members
        if task == "regression" and self.recipe.class_weight is not None:
            raise ConfigError(f"class_weight={self.recipe.class_weight!r} needs task='classification'. Leave it out.")
        self.classes, self.batch_size, self.device = classes, batch_size, device
        self.checkpoint, self.random_state = checkpoint, random_state

    def fit(self, smiles: Sequence[str], targets_NT: NDArray[np.float64], progress: Progress | None = None) -> FineTuner:
        """Trains all members.

        Args:
            smiles: N SMILES. They are canonicalised.
            targets_NT: Values, or class codes 0, 1, ...; NaN is missing. [N] is one target.
            progress: Called with the number of epochs done and of all epochs; early stopping jumps ahead.

        Raises:
            InvalidSmilesError: If the model cannot use a SMILES.
            DataError: If the shapes differ, a value is infinite, a code is not a class, or a target has no value.
            ConfigError: If the model is not in fp32, or does not have the layers or the decoder that the recipe needs.
        """
        model = self._model()
        rows = self._rows(model, smiles, self._checked(smiles, targets_NT))
        self.fingerprint_ = model.fingerprint(self.recipe.kind)
        epochs = self.recipe.epochs
        self.members_: list[dict[str, Tensor]] = []
        for number in range(self.members):
            seed, report = self.random_state + number, _after(number * epochs, self.members * epochs, progress)
            checkpoint = self._checkpoint(rows, seed)
            kept = checkpoint.read("member") if checkpoint else None
            weights = kept[0] if kept else train_member(model, rows, self.recipe, seed, checkpoint, report)
            if checkpoint and not kept:
                checkpoint.write("member", weights, {})
                checkpoint.remove("epoch")
            report(epochs, epochs)
            self.members_.append(weights)
        return self

    def predict(self, smiles: Sequence[str], progress: Progress | None = None) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Predicts N molecules, averaged over the members.

        Args:
            smiles: N SMILES. They are canonicalised.
            progress: Called with the number of molecules done and of all, each counted once for each member.

        Returns:
            Regression: float64 [N, T], in the unit of the targets. Classification: for each target, probabilities [N, C_t].

        Raises:
            InvalidSmilesError: If there are no molecules, or if the model cannot use one.
            ConfigError: If it is not fitted.
        """
        if not hasattr(self, "members_"):
            raise ConfigError("This FineTuner is not fitted. Call fit first, or from_state.")
        model = self._model()
        inputs = tokenize(smiles, model.tokenizer, model.config.network.max_tokens, InputOptions())
        count, total = len(inputs.tokens), len(inputs.tokens) * len(self.members_)
        start = 0.0 if self.frozen_ is None else self.frozen_.outputs(self._frozen_vectors(model, inputs.tokens))
        parts = []
        for number, weights in enumerate(self.members_):
            member = Member.of_weights(model, self.recipe, self.outputs_, weights)
            report = _after(number * count, total, progress)
            outputs = member.outputs(inputs.tokens, self.batch_size, report).cpu().double().numpy() + start
            if self.task == "classification":
                outputs = np.concatenate([softmax(outputs[:, part], axis=1) for part in self.outputs_.slices], 1)
            parts.append(outputs)
        mean = np.mean(parts, 0)[inputs.molecule_of_row]
        if self.task == "regression":
            return mean * self.scale_ + self.centre_
        return [mean[:, part] for part in self.outputs_.slices]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What `from_state` needs: the changed weights of all members as arrays, and settings that JSON can hold."""
        arrays = {
            f"{number}.{name}": tensor.numpy() for number, weights in enumerate(self.members_) for name, tensor in weights.items()
        }
        if self.frozen_ is not None:
            arrays |= {f"frozen.{name}": array for name, array in self.frozen_._asdict().items()}
        settings = {
            "task": self.task,
            "recipe": dataclasses.asdict(self.recipe),
            "members": len(self.members_),
            "widths": list(self.outputs_.widths),
            "centre": self.centre_.tolist(),
            "scale": self.scale_.tolist(),
            "random_state": self.random_state,
            "fingerprint": self.fingerprint_,
        }
        return arrays, settings

    @classmethod
    def from_state(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        settings: Mapping[str, Any],
        model: str | os.PathLike[str] | CMIMModel | None = None,
        *,
        batch_size: int | None = None,
        device: str | None = None,
    ) -> FineTuner:
        """The fitted predictor that `state` described.

        Args:
            arrays: The changed weights.
            settings: The settings.
            model: The model that was fine-tuned; see `FineTuner`.
            batch_size: See `FineTuner`.
            device: See `FineTuner`.

        Raises:
            CheckpointError: If the model is another one, or the weights do not fit it.
        """
        recipe = Recipe(**settings["recipe"])
        tuner = cls(
            settings["task"], model, recipe=recipe, members=settings["members"], batch_size=batch_size, device=device,
            random_state=settings["random_state"],
        )  # fmt: skip
        base = tuner._model()
        found = base.fingerprint(recipe.kind)
        if found != settings["fingerprint"]:
            raise CheckpointError(
                f"These weights were trained from an embedding with the fingerprint {settings['fingerprint'][:12]}, but that of "
                f"{base.name or base!r} is {found[:12]}. Pass the model that was fine-tuned."
                f"{fingerprint_hint(settings['fingerprint'])}"
            )
        tuner.outputs_ = Outputs(settings["task"], tuple(settings["widths"]))
        tuner.centre_, tuner.scale_ = np.array(settings["centre"]), np.array(settings["scale"])
        tuner.fingerprint_ = found
        tuner.members_ = [{} for _ in range(settings["members"])]
        of_frozen = {name.removeprefix("frozen."): array for name, array in arrays.items() if name.startswith("frozen.")}
        tuner.frozen_ = FrozenHead.of_arrays(of_frozen) if recipe.start else None
        for name, array in arrays.items():
            number, _, rest = name.partition(".")
            if number == "frozen":
                continue
            tuner.members_[int(number)][rest] = torch.from_numpy(np.array(array))
        for weights in tuner.members_:
            Member.of_weights(base, recipe, tuner.outputs_, weights)  # checks names and shapes
        return tuner

    def _model(self) -> CMIMModel:
        model = resolve(self.model, self.device, engine="torch")
        if model.precision != "fp32":
            raise ConfigError(
                f"Fine-tuning needs a model in fp32, but this one is in {model.precision}. Load it without `precision`."
            )
        return model

    def _rows(self, model: CMIMModel, smiles: Sequence[str], targets: NDArray[np.float64]) -> Rows:
        """The rows that have a value, standardised; sets `outputs_`, `centre_` and `scale_`."""
        known = ~np.isnan(targets)
        self.centre_, self.scale_ = np.zeros(targets.shape[1]), np.ones(targets.shape[1])
        if self.task == "regression":
            self.outputs_ = Outputs(self.task, (1,) * targets.shape[1])
            self.centre_, self.scale_ = np.nanmean(targets, 0), np.nanstd(targets, 0)
            self.scale_[self.scale_ == 0] = 1.0
        else:
            self.outputs_ = Outputs(self.task, self._classes(targets, known))
        used = np.flatnonzero(known.any(axis=1)).tolist()
        inputs = tokenize([smiles[row] for row in used], model.tokenizer, model.config.network.max_tokens, InputOptions())
        standardised, of_row = (targets[used] - self.centre_) / self.scale_, inputs.molecule_of_row
        start = np.zeros((len(used), sum(self.outputs_.widths)))
        weights = balanced_weights(standardised, self.outputs_) if self.recipe.class_weight else None
        self.frozen_ = None
        if self.recipe.start:
            x = self._frozen_vectors(model, inputs.tokens)[of_row]
            self.frozen_, start = fit_frozen(x, standardised, of_row, self.outputs_, self.random_state)
            if weights is not None:  # from the probabilities of these rows to those of classes of equal size
                self.frozen_, start = self.frozen_._replace(bias_W=self.frozen_.bias_W + np.log(weights)), start + np.log(weights)
        return Rows(inputs.tokens, of_row, standardised, start, self.outputs_, weights)

    def _frozen_vectors(self, model: CMIMModel, tokens: list[list[int]]) -> NDArray[np.float32]:
        spec = embedding_spec(model.config, self.recipe.kind, None, "mean")
        limits = batch_limits(model.config.network, self.batch_size, on_gpu=model.device.type == "cuda")
        return vectors(model.network, model.tokenizer.vocabulary, tokens, spec, limits)[:-1]

    def _checked(self, smiles: Sequence[str], targets_NT: NDArray[np.float64]) -> NDArray[np.float64]:
        targets = np.asarray(targets_NT, dtype=np.float64)
        targets = targets[:, None] if targets.ndim == 1 else targets
        if targets.ndim != 2 or len(targets) != len(smiles) or not targets.shape[1]:
            raise DataError(
                f"Found {len(smiles)} SMILES and targets of shape {list(targets.shape)}. Pass an array [N, T] with one row for each SMILES."
            )
        if np.isinf(targets).any():
            row, column = np.argwhere(np.isinf(targets))[0]
            raise DataError(
                f"Target {column} of molecule {row} ({smiles[row]!r}) is infinite. Leave it out, or pass NaN if it is missing."
            )
        empty = np.isnan(targets).all(0)
        if empty.any():
            raise DataError(f"Target {int(np.argmax(empty))} has no value: all {len(targets)} are missing. Leave the target out.")
        return targets

    def _classes(self, targets: NDArray[np.float64], known: NDArray[np.bool_]) -> tuple[int, ...]:
        codes = np.where(known, targets, 0)
        limits = codes.max(0).astype(int) + 1 if self.classes is None else np.asarray(self.classes)
        if limits.shape != (targets.shape[1],):
            raise ConfigError(f"classes has {limits.size} numbers, but there are {targets.shape[1]} targets. Pass one for each.")
        bad = (codes < 0) | (codes != np.floor(codes)) | (codes >= limits)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"Target {column} of molecule {row} is {targets[row, column]}, not a class code from 0 to {limits[column] - 1}. "
                "Number the classes from 0."
            )
        return tuple(int(limit) for limit in np.maximum(2, limits))

    def _checkpoint(self, rows: Rows, seed: int) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        settings = [dataclasses.asdict(self.recipe), self.random_state, seed, self.fingerprint_, torch.__version__]
        text = json.dumps([*settings, rows.tokens, rows.molecule_of_row.tolist(), rows.targets_NT.tolist(), rows.outputs])
        return Checkpoint(Path(self.checkpoint) / f"seed-{seed}", hashlib.sha256(text.encode()).hexdigest())


def _after(before: int, total: int, progress: Progress | None) -> Progress:
    """A function that reports the progress of one part of the work."""
    return lambda done, _: None if progress is None else progress(before + done, total)
