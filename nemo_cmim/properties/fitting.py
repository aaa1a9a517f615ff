"""Fits on some of the rows: chooses the head and learns everything from these rows alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import check_integer
from ..errors import ConfigError, DataError
from ..tables.progress import counting_bar
from .choice import INNER_FOLDS, Candidate, Choice, choose
from .feature_sets import FeatureSet
from .fine_tuning import FineTuner, Recipe
from .named_heads import AUTO, CANDIDATES
from .partition import Partition
from .predictor import FeaturePredictor, Predictor
from .targets import Targets
from .transforms import TargetTransform
from .validation import Fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FineTuning", "Fitter"]

MEMBERS = 3  # if the caller does not say how many


@dataclass(frozen=True)
class FineTuning:
    """How the network of the embeddings is trained together with a head.

    Attributes:
        recipe: What is trained, and how.
        members: Number of networks that are averaged.
        checkpoint: Folder in which an interrupted fit is continued; None: none.
    """

    recipe: Recipe
    members: int = MEMBERS
    checkpoint: Path | None = None

    @classmethod
    def of(cls, fine_tune: Any, members: int, checkpoint: Any, features: str, head: Any) -> FineTuning | None:
        """Checks the arguments of `PropertyModel`; None if the network is not trained.

        Raises:
            ConfigError: If they do not fit together.
        """
        check_integer("members", members)
        if fine_tune is None:
            if checkpoint is not None:
                raise ConfigError("checkpoint needs fine_tune: only fine-tuning is continued. Leave it out.")
            if members != MEMBERS:
                raise ConfigError(f"members={members} needs fine_tune: only fine-tuned networks are averaged. Leave it out.")
            return None
        if features not in ("informative", "mean"):
            raise ConfigError(
                f"fine_tune needs features='informative' or features='mean', found {features!r}: the network is trained by one of these "
                "vectors."
            )
        if not isinstance(head, str) or head != AUTO:
            raise ConfigError(f"fine_tune has a head of its own, found head={head!r}. Leave head out, or leave fine_tune out.")
        recipe = fine_tune if isinstance(fine_tune, Recipe) else Recipe(scope=fine_tune, kind=features)
        if recipe.kind != features:
            raise ConfigError(f"fine_tune has kind={recipe.kind!r}, but features={features!r}. Pass the same in both.")
        return cls(recipe, members, None if checkpoint is None else Path(checkpoint))

    def predictor(self, task: str, features: FeatureSet, classes: Sequence[int], seed: int, rows: NDArray[np.int64]) -> FineTuner:
        """An unfitted predictor for these training rows. Fits on other rows have other folders within `checkpoint`."""
        folder = None
        if self.checkpoint is not None:
            folder = self.checkpoint / f"rows-{hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest()[:12]}"
        return FineTuner(
            task, features.model, recipe=self.recipe, members=self.members, classes=classes or None, batch_size=features.batch_size,
            device=features.device, checkpoint=folder, random_state=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Fitter:
    """Fits on some rows of a data set.

    Attributes:
        task: "regression" or "classification".
        head: Name of a head, "auto", or a scikit-learn estimator.
        transform: Name of the transform of the targets; None: none.
        features: The features.
        smiles: N canonical SMILES.
        targets: Their targets.
        partition: How the rows are split, also within training rows.
        seed: Seed of the heads.
        seconds: Time limit of one choice of the head.
        fine_tuning: Trains the network in place of a head on features.
        progress: Show the epochs of fine-tuning on stderr.
    """

    task: str
    head: Any
    transform: str | None
    features: FeatureSet
    smiles: Sequence[str]
    targets: Targets
    partition: Partition
    seed: int | None
    seconds: float
    fine_tuning: FineTuning | None = None
    progress: bool = False

    def __call__(self, rows: NDArray[np.int64], candidates: Sequence[Candidate] = ()) -> Fitted:
        """Chooses and fits on the rows with these indices.

        Args:
            rows: The rows.
            candidates: For "auto", heads to choose from; without any, all.

        Raises:
            DataError: If a fine-tuned network has a target without any value in these rows.
        """
        texts = [self.smiles[row] for row in rows]
        transform = TargetTransform(self.transform).fit(self.targets.values_NT[rows])
        values_NT = transform.forward(self.targets.values_NT[rows])
        classes = [len(labels) for labels in self.targets.classes]
        if self.fine_tuning is not None:
            empty = np.isnan(values_NT).all(axis=0)
            if empty.any():
                raise DataError(
                    f"The target {self.targets.names[int(np.argmax(empty))]!r} has no value in the {len(rows)} training rows of a fold. "
                    "Use fewer folds, another split or more data."
                )
            tuner = self.fine_tuning.predictor(self.task, self.features, classes, self.partition.seed, rows)
            with counting_bar(desc="fine-tuning", unit="epoch", leave=False, disable=not self.progress) as show:
                return Fitted(tuner.fit(texts, values_NT, show), transform)
        make = functools.partial(self._predictor, classes)
        if not isinstance(self.head, str) or self.head != AUTO:
            return Fitted(make(self.head).fit(texts, values_NT), transform)
        among = candidates or CANDIDATES[self.task]
        if len(among) == 1:
            head, settings = among[0]
            tried = {"head": head, "settings": settings, "score": np.nan, "seconds": 0.0, "note": "chosen in every fold"}
            choice = Choice(head, settings, [tried])
        else:
            inner = self.partition.part(rows).inner_splits(INNER_FOLDS)
            choice = choose(make, among, self.task, texts, values_NT, inner, self.seconds)
        return Fitted(make(choice.head, choice.settings).fit(texts, values_NT), transform, choice)

    def _predictor(self, classes: Sequence[int], head: Any, settings: dict[str, Any] | None = None) -> Predictor:
        return FeaturePredictor(self.features, head, self.task, classes, settings, self.seed, self.features.device)
