"""Chooses a head by cross-validation within the training rows.

Shape letters: N rows, T targets, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import ConfigError, DataError
from .named_heads import CANDIDATES
from .predictor import Predictor
from .splits import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["INNER_FOLDS", "Choice", "choice_table", "choose"]

INNER_FOLDS = 3


class Choice(NamedTuple):
    """A head.

    Attributes:
        head: Its name.
        settings: Parameters that differ from its default.
        tried: A row for each candidate: `head, settings, score, seconds, note`.
    """

    head: str
    settings: dict[str, Any]
    tried: list[dict[str, Any]]


def choose(
    make: Callable[[str, dict[str, Any]], Predictor],
    task: str,
    smiles: Sequence[str],
    targets_NT: NDArray[np.float64],
    splits: Sequence[Split],
    seconds: float,
) -> Choice:
    """The candidate with the lowest score: RMSE in standard deviations of the target, or log loss; the mean over folds and targets.

    The first candidate is always tried. A candidate that has not been tried on all folds when the time is over is not chosen.

    Args:
        make: Makes an unfitted predictor of a head and its settings.
        task: "regression" or "classification".
        smiles: N canonical SMILES.
        targets_NT: Targets or codes of classes.
        splits: Inner splits of these rows.
        seconds: Time limit, checked before each fit.
    """
    end = time.monotonic() + seconds
    tried: list[dict[str, Any]] = []
    best: tuple[float, str, dict[str, Any]] | None = None
    for head, settings in CANDIDATES[task]:
        start, scores, note = time.monotonic(), [], ""
        for split in splits:
            if best is not None and time.monotonic() > end:
                note = "out of time"
                break
            try:
                predictor = make(head, settings).fit([smiles[row] for row in split.train], targets_NT[split.train])
                predicted = predictor.predict([smiles[row] for row in split.test])
            except (ConfigError, DataError) as error:  # for example too many rows for a Gaussian process
                note = str(error)
                break
            scores += _scores(task, targets_NT[split.test], predicted, targets_NT)
        score = float(np.mean(scores)) if scores and not note else np.nan
        tried.append({"head": head, "settings": settings, "score": score, "seconds": time.monotonic() - start, "note": note})
        if score == score and (best is None or score < best[0]):
            best = score, head, settings
    if best is None:
        raise DataError(f"No head could be fitted. The first, {tried[0]['head']}: {tried[0]['note']}")
    return Choice(best[1], best[2], tried)


def _scores(task: str, truth_NT: NDArray[np.float64], predicted: Any, all_NT: NDArray[np.float64]) -> list[float]:
    """One score for each target with a value in these rows."""
    scores = []
    for number, truth_N in enumerate(truth_NT.T):
        known = ~np.isnan(truth_N)
        if not known.any():
            continue
        if task == "regression":
            errors = predicted[known, number] - truth_N[known]
            scores.append(float(np.sqrt(np.square(errors).mean()) / (np.nanstd(all_NT[:, number]) or 1.0)))
        else:
            of_truth = predicted[number][known, truth_N[known].astype(np.int64)]
            scores.append(float(-np.log(np.maximum(of_truth, 1e-6)).mean()))
    return scores


def choice_table(choices: Sequence[Choice | None]) -> pd.DataFrame:
    """What each fold, and last the fit on all rows, tried: `fold, head, settings, score, seconds, note, chosen`."""
    rows = []
    for fold, choice in enumerate(choices):
        name = "all rows" if fold == len(choices) - 1 else str(fold)
        for tried in choice.tried if choice else ():
            chosen = choice is not None and (tried["head"], tried["settings"]) == (choice.head, choice.settings)
            rows.append({"fold": name, **tried, "chosen": chosen})
    return pd.DataFrame(rows, columns=["fold", "head", "settings", "score", "seconds", "note", "chosen"])
