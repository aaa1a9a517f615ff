"""Chooses a head by cross-validation within the training rows.

Shape letters: N rows, T targets, C classes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import ConfigError, DataError
from .predictor import Predictor
from .splits import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["INNER_FOLDS", "Candidate", "Choice", "choice_table", "choose", "chosen_before", "warn_of_untried"]

INNER_FOLDS = 3
_MAX_GP_ROWS = 1000  # of one fit of "auto", where `named_heads` allows more: with more, it takes minutes
_OUT_OF_TIME = "out of time"

Candidate = tuple[str, dict[str, Any]]
"""A head and its settings."""


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
    candidates: Sequence[Candidate],
    task: str,
    smiles: Sequence[str],
    targets_NT: NDArray[np.float64],
    splits: Sequence[Split],
    seconds: float,
) -> Choice:
    """The candidate with the lowest score: RMSE in standard deviations of the target, or log loss; the mean over folds and targets.

    The first candidate is always tried. A candidate that has not been tried on all folds when the time is over is not chosen. A fit does
    not begin if it would end too late, judged by the last fit of its candidate.

    Args:
        make: Makes an unfitted predictor of a head and its settings.
        candidates: What is tried, in this order.
        task: "regression" or "classification".
        smiles: N canonical SMILES.
        targets_NT: Targets or codes of classes.
        splits: Inner splits of these rows.
        seconds: Time limit, checked before each fit.

    Raises:
        DataError: If no candidate can be fitted.
    """
    end = time.monotonic() + seconds
    tried: list[dict[str, Any]] = []
    best: tuple[float, str, dict[str, Any]] | None = None
    for head, settings in candidates:
        start, scores, note, last = time.monotonic(), [], "", 0.0
        for split in splits:
            begin = time.monotonic()
            if best is not None and begin + last > end:
                note = _OUT_OF_TIME
                break
            try:
                if head == "gp" and len(split.train) > _MAX_GP_ROWS:
                    raise ConfigError(f"gp is tried with at most {_MAX_GP_ROWS:,} training rows")
                predictor = make(head, settings).fit([smiles[row] for row in split.train], targets_NT[split.train])
                predicted = predictor.predict([smiles[row] for row in split.test])
            except (ConfigError, DataError) as error:  # for example too many rows for a Gaussian process
                note = str(error)
                break
            scores += _scores(task, targets_NT[split.test], predicted, targets_NT)
            last = time.monotonic() - begin
        score = float(np.mean(scores)) if scores and not note else np.nan
        tried.append({"head": head, "settings": settings, "score": score, "seconds": time.monotonic() - start, "note": note})
        if score == score and (best is None or score < best[0]):
            best = score, head, settings
    if best is None:
        raise DataError(f"No head could be fitted. The first, {tried[0]['head']}: {tried[0]['note']}")
    return Choice(best[1], best[2], tried)


def _scores(task: str, truth_NT: NDArray[np.float64], predicted: Any, all_NT: NDArray[np.float64]) -> list[float]:
    """One score for each target with a value in these rows and in those of the fit."""
    scores = []
    for number, truth_N in enumerate(truth_NT.T):
        found = predicted[:, number] if task == "regression" else predicted[number][:, 0]
        known = ~np.isnan(truth_N) & ~np.isnan(found)
        if not known.any():
            continue
        if task == "regression":
            errors = predicted[known, number] - truth_N[known]
            scores.append(float(np.sqrt(np.square(errors).mean()) / (np.nanstd(all_NT[:, number]) or 1.0)))
        else:
            of_truth = predicted[number][known, truth_N[known].astype(np.int64)]
            scores.append(float(-np.log(np.maximum(of_truth, 1e-6)).mean()))
    return scores


def chosen_before(choices: Sequence[Choice | None]) -> list[Candidate]:
    """What the folds chose, the most frequent first. The fit on all rows compares these, so that metrics are those of its head."""
    found: list[Candidate] = [(choice.head, choice.settings) for choice in choices if choice]
    return sorted((one for i, one in enumerate(found) if one not in found[:i]), key=found.count, reverse=True)


def warn_of_untried(choices: Sequence[Choice | None], seconds: float) -> None:
    """Warns of heads that some fold did not try for lack of time."""
    untried = [tried["head"] for choice in choices if choice for tried in choice.tried if tried["note"] == _OUT_OF_TIME]
    if untried:
        warnings.warn(
            f"head='auto' did not try {', '.join(dict.fromkeys(untried))} in every fold: the time limit of {seconds:g} s was over. Pass a "
            "larger time_limit to try all.",
            stacklevel=3,
        )


def choice_table(choices: Sequence[Choice | None]) -> pd.DataFrame:
    """What each fold, and last the fit on all rows, tried: `fold, head, settings, score, seconds, note, chosen`."""
    rows = []
    for fold, choice in enumerate(choices):
        name = "all rows" if fold == len(choices) - 1 else str(fold)
        for tried in choice.tried if choice else ():
            chosen = choice is not None and (tried["head"], tried["settings"]) == (choice.head, choice.settings)
            rows.append({"fold": name, **tried, "chosen": chosen})
    return pd.DataFrame(rows, columns=["fold", "head", "settings", "score", "seconds", "note", "chosen"])
