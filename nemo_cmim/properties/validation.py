"""Fits on training rows, and nested cross-validation: everything that is learnt or chosen is learnt again in each fold.

Shape letters: N rows, T targets, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from ..errors import DataError
from .choice import Choice
from .metrics import classification_metrics, regression_metrics
from .predictor import Predictor
from .splits import Split
from .targets import Targets
from .transforms import TargetTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Fitted", "OutOfFold", "Tested", "cross_validate"]


@dataclass
class Fitted:
    """What was learnt from training rows.

    Attributes:
        predictor: The predictor, which predicts transformed targets.
        transform: The transform of the targets.
        choice: The head that was chosen.
    """

    predictor: Predictor
    transform: TargetTransform
    choice: Choice | None = None


class Tested(NamedTuple):
    """The rows of a cross-validation.

    Attributes:
        smiles: N canonical SMILES.
        targets: Their targets.
        rows: Index of each row in the caller's table.
        splits: The splits.
    """

    smiles: Sequence[str]
    targets: Targets
    rows: NDArray[np.int64]
    splits: Sequence[Split]


class OutOfFold(NamedTuple):
    """Predictions of test rows by models that have not seen their molecules.

    Attributes:
        table: A row for each test row and target: `row, fold, target, measured, prediction, score`, and for classification the probability
            `p_LABEL` of each class. `score` is the conformal score, see `intervals`.
        metrics: A row for each target and metric: `target, metric, mean, sd, folds`; sd is that of the sample, over the `folds` in which
            the metric is defined.
        scores: Conformal scores of each target.
        choices: The head that each fold chose; None if it was given.
    """

    table: pd.DataFrame
    metrics: pd.DataFrame
    scores: list[NDArray[np.float64]]
    choices: list[Choice | None]


@dataclass
class _Collected:
    """Blocks of the results of all folds."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)


def cross_validate(
    fit: Callable[[NDArray[np.int64]], Fitted],
    smiles: Sequence[str],
    targets: Targets,
    splits: Sequence[Split],
    rows: NDArray[np.int64],
    *,
    n_jobs: int | None = None,
    progress: bool = False,
) -> OutOfFold:
    """Fits on the training rows of each split and predicts its test rows.

    Args:
        fit: Fits on these rows of `smiles` and `targets`.
        smiles: N canonical SMILES.
        targets: Their targets.
        splits: The splits.
        rows: Index of each row in the caller's table.
        n_jobs: Number of processes, as in scikit-learn.
        progress: Show a progress bar on stderr.

    Raises:
        DataError: If no fold has values of a target in its training and in its test rows.
    """
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(delayed(_fold)(fit, smiles, split) for split in splits)
    found, choices = _Collected(), []
    for fold, (transform, choice, predicted) in enumerate(tqdm(results, "folds", len(splits), disable=not progress)):
        choices.append(choice)
        for number, name in enumerate(targets.names):
            truth_N = targets.values_NT[splits[fold].test, number]
            of_target = predicted[number][:, 0] if targets.classes else predicted[:, number]
            known = np.flatnonzero(~np.isnan(truth_N) & ~np.isnan(of_target))
            if len(known) < np.count_nonzero(~np.isnan(truth_N)):
                warnings.warn(
                    f"The target {name!r} is not tested in fold {fold}: it has no value in the training rows. Use fewer folds, another "
                    "split or more data.",
                    stacklevel=3,
                )
            if len(known):
                head = {"row": rows[splits[fold].test[known]], "fold": fold, "target": name}
                if targets.classes:
                    _add_classes(found, head, targets.classes[number], truth_N[known], predicted[number][known])
                else:
                    _add_values(found, number, head, truth_N[known], transform, predicted[known], targets.values_NT.shape[1])
    if not found.tables:
        raise DataError(
            "No target can be tested: none has a value in the training and in the test rows of a fold. Use another split."
        )
    table = pd.concat(found.tables, ignore_index=True)
    scores = [table.loc[table["target"] == name, "score"].to_numpy() for name in targets.names]
    return OutOfFold(table, _summary(pd.DataFrame(found.metrics)), scores, choices)


def _fold(fit: Callable[[NDArray[np.int64]], Fitted], smiles: Sequence[str], split: Split) -> tuple[TargetTransform, Any, Any]:
    fitted = fit(split.train)
    return fitted.transform, fitted.choice, fitted.predictor.predict([smiles[row] for row in split.test])


def _add_values(
    found: _Collected,
    number: int,
    head: dict[str, Any],
    truth_N: NDArray[np.float64],
    transform: TargetTransform,
    predicted_NT: NDArray[np.float64],
    width: int,
) -> None:
    """Adds predictions of a regression; the conformal scores are residuals of the transformed target."""
    all_NT = np.full((len(truth_N), width), np.nan)
    all_NT[:, number] = truth_N
    residuals = np.abs(transform.forward(all_NT)[:, number] - predicted_NT[:, number])
    values_N = transform.backward(predicted_NT)[:, number]
    found.tables.append(pd.DataFrame({**head, "measured": truth_N, "prediction": values_N, "score": residuals}))
    metrics = regression_metrics(truth_N, values_N)
    found.metrics += [{"target": head["target"], "metric": name, "value": value} for name, value in metrics.items()]


def _add_classes(
    found: _Collected,
    head: dict[str, Any],
    labels: NDArray[Any],
    truth_N: NDArray[np.float64],
    probabilities_NC: NDArray[np.float64],
) -> None:
    """Adds predictions of a classification; the conformal scores are 1 - the probability of the true class."""
    codes_N = truth_N.astype(np.int64)
    scores_N = 1 - probabilities_NC[np.arange(len(codes_N)), codes_N]
    columns = {f"p_{label}": probabilities_NC[:, code] for code, label in enumerate(labels)}
    predicted = labels[probabilities_NC.argmax(axis=1)]
    found.tables.append(pd.DataFrame({**head, "measured": labels[codes_N], "prediction": predicted, "score": scores_N, **columns}))
    metrics = classification_metrics(codes_N, probabilities_NC)
    found.metrics += [{"target": head["target"], "metric": name, "value": value} for name, value in metrics.items()]


def _summary(values: pd.DataFrame) -> pd.DataFrame:
    table = values.groupby(["target", "metric"], sort=False)["value"].agg(["mean", "std", "count"]).reset_index()
    return table.rename(columns={"std": "sd", "count": "folds"})
