"""Regressors and classifiers by name, and the settings that `head="auto"` tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC, SVR

from ..errors import ConfigError, DataError
from .heads import FeatureScaler, MLPHead

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AUTO", "CANDIDATES", "HEADS", "check_head_name", "named_head"]

AUTO = "auto"
MAX_GP_ROWS = 2000
_MLP_EPOCHS = 100


def _gp_kernel(columns: int) -> Any:
    """On scaled columns, squared distances grow with their number."""
    return ConstantKernel(1.0) * RBF(np.sqrt(columns)) + WhiteKernel(0.1)


_REGRESSORS: Mapping[str, Callable[[int, int | None, str | None], Any]] = {
    "ridge": lambda columns, seed, device: Ridge(alpha=columns / 10),
    "svm": lambda columns, seed, device: SVR(),
    "neighbours": lambda columns, seed, device: KNeighborsRegressor(weights="distance", algorithm="brute"),
    "boosting": lambda columns, seed, device: HistGradientBoostingRegressor(random_state=seed),
    "mlp": lambda columns, seed, device: MLPHead(steps=2000, random_state=seed, device=device),
    "gp": lambda columns, seed, device: GaussianProcessRegressor(_gp_kernel(columns), normalize_y=True, random_state=seed),
}
_CLASSIFIERS: Mapping[str, Callable[[int, int | None, str | None], Any]] = {
    "logistic": lambda columns, seed, device: LogisticRegression(C=10 / columns, max_iter=2000),
    "svm": lambda columns, seed, device: CalibratedClassifierCV(SVC(), cv=3, ensemble=False),
    "neighbours": lambda columns, seed, device: KNeighborsClassifier(9, weights="distance", algorithm="brute"),
    "boosting": lambda columns, seed, device: HistGradientBoostingClassifier(random_state=seed),
    "mlp": lambda columns, seed, device: MLPClassifier((128,), batch_size=32, max_iter=_MLP_EPOCHS, random_state=seed),
    "gp": lambda columns, seed, device: GaussianProcessClassifier(1.0 * RBF(np.sqrt(columns)), random_state=seed),
}
HEADS = {"regression": tuple(_REGRESSORS), "classification": tuple(_CLASSIFIERS)}

CANDIDATES: Mapping[str, list[tuple[str, dict[str, Any]]]] = {
    "regression": [
        ("ridge", {}),
        ("svm", {}),
        ("svm", {"C": 10.0}),
        ("neighbours", {}),
        ("gp", {}),
        ("boosting", {}),
        ("mlp", {}),
    ],
    "classification": [
        ("logistic", {}),
        ("svm", {}),
        ("svm", {"estimator__C": 10.0}),
        ("neighbours", {}),
        ("boosting", {}),
        ("mlp", {}),
    ],
}
"""Heads and settings that `head="auto"` tries, in this order: fast ones first."""


def check_head_name(name: str, task: str) -> None:
    """Raises a `ConfigError` unless this is a name of `HEADS[task]`."""
    if name not in HEADS[task]:
        raise ConfigError(f"head={name!r} is unknown for {task}. Choose {', '.join(HEADS[task])} or {AUTO}.")


def named_head(
    name: str,
    task: str,
    x_ND: NDArray[np.float64],
    y_N: NDArray[np.float64],
    settings: Mapping[str, Any] | None = None,
    seed: int | None = 0,
    device: str | None = None,
) -> Pipeline:
    """An unfitted head for these training rows. Its first step scales the features.

    Args:
        name: A name of `HEADS[task]`.
        task: "regression" or "classification".
        x_ND: Features of the training rows.
        y_N: Targets, or codes of classes.
        settings: Parameters that differ from its default.
        seed: Its `random_state`.
        device: Device of `mlp` for regression.

    Raises:
        ConfigError: If the name is unknown, or if a Gaussian process would get more than 2,000 rows.
        DataError: If a class has too few rows for `svm`.
    """
    check_head_name(name, task)
    known = _REGRESSORS if task == "regression" else _CLASSIFIERS
    rows, columns = x_ND.shape
    if name == "gp" and rows > MAX_GP_ROWS:
        raise ConfigError(
            f"head='gp' supports at most {MAX_GP_ROWS:,} training rows, because its time grows with their third power; found {rows:,}. "
            "Choose a different head, for example svm."
        )
    head = known[name](columns, seed, device).set_params(**(settings or {}))
    if task == "classification" and len(np.unique(y_N)) < 2:
        head = DummyClassifier()
    elif isinstance(head, CalibratedClassifierCV):
        fewest = int(np.unique(y_N, return_counts=True)[1].min())
        if fewest < 2:
            raise DataError(
                "head='svm' needs at least 2 training rows of each class. Choose logistic, or leave out the rare class."
            )
        head.set_params(cv=min(3, fewest))
    elif isinstance(head, KNeighborsRegressor | KNeighborsClassifier):
        head.set_params(n_neighbors=min(head.n_neighbors, rows))
    return make_pipeline(FeatureScaler(), clone(head))
