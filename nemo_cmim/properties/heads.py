"""Regressors on features: an SVM, and an MLP with one hidden layer (Sec. D.2).

Shape letters: E models trained together, N rows, B rows of a batch, D columns, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, RegressorMixin, TransformerMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ..errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FeatureScaler", "MLPHead", "fit_together", "svm"]

SETTINGS = ("hidden", "steps", "batch_size", "learning_rate", "device")  # equal for models that train together


class FeatureScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """`StandardScaler`, except that features with only zeros and ones (fingerprints) stay unchanged."""

    def fit(self, X: Any, y: Any = None) -> FeatureScaler:
        """Learns mean and standard deviation of each column of X [N, D]."""
        X = validate_data(self, X, dtype=np.float64)
        self.scaler_ = None if np.isin(X, (0, 1)).all() else StandardScaler().fit(X)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Scaled X, float64 [N, D]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X if self.scaler_ is None else self.scaler_.transform(X)


def svm(precompute_kernel: bool = False) -> Pipeline:
    """Scikit-learn's `SVR` with its default values (Sec. D.2) on scaled features. Targets are not scaled.

    Args:
        precompute_kernel: Compute the kernel as one matrix. The predictions are the same up to floating-point
            rounding. This is about five times faster for 2,048 columns, and needs memory for N x N float64 values.
    """
    return make_pipeline(FeatureScaler(), SVR(kernel=_rbf_kernel if precompute_kernel else "rbf"))


def _rbf_kernel(x_ND: NDArray[np.float64], train_MD: NDArray[np.float64]) -> NDArray[np.float64]:
    """The default kernel of `SVR` (gamma="scale"), whose width is computed from the training rows."""
    return rbf_kernel(x_ND, train_MD, gamma=1 / (train_MD.shape[1] * (train_MD.var() or 1.0)))


class _Weights(NamedTuple):
    """w_DH, b_H of the hidden layer; v_H, c_1 of the output layer. In training each has a leading dimension E."""

    w: Any
    b: Any
    v: Any
    c: Any


class MLPHead(RegressorMixin, BaseEstimator):
    """MLP regressor with one hidden layer, ReLU, mean squared error and Adam (Sec. D.2), in fp32 with PyTorch.

    Features are scaled by `FeatureScaler`, and targets are standardised for training. Predictions are in the unit of the targets passed
    to `fit`. Columns that are zero after scaling in all training rows are ignored. Rows are shuffled in each epoch. On one device, the
    same `random_state` gives the same model.

    Differs from the paper: it does not say how features and targets were scaled.

    Args:
        hidden: Number of units of the hidden layer.
        steps: Number of optimiser steps.
        batch_size: Number of rows in a step.
        learning_rate: Constant learning rate of Adam.
        random_state: Seed of the weights and of the order of rows.
        device: Device of the training, such as "cpu" or "cuda". None uses a GPU if there is one.
    """

    def __init__(
        self,
        hidden: int = 128,
        steps: int = 10_000,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        random_state: Any = 0,
        device: str | None = None,
    ) -> None:
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> MLPHead:
        """Trains on features X [N, D] and targets y [N]."""
        fit_together([self], [X], [y])
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predictions [N] in the unit of the training targets."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        x_ND = self.scaler_.transform(X)[:, self.columns_].astype(np.float32)
        net = self.weights_
        y_N = np.maximum(x_ND @ net.w + net.b, 0) @ net.v + net.c
        return y_N.astype(np.float64) * self.target_scale_ + self.target_mean_

    def _prepare(self, X: Any, y: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Checks and scales; returns x_ND with the columns that are in use, and y_N."""
        for name in ("hidden", "steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"MLPHead: {name} must be positive, found {getattr(self, name)!r}.")
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self.scaler_ = FeatureScaler().fit(X)
        x = self.scaler_.transform(X).astype(np.float32)
        self.columns_ = np.flatnonzero(x.any(axis=0))
        self.target_mean_ = float(np.mean(y))
        exponent = int(np.frexp(np.ptp(y))[1])  # scaled by it, squares of the targets do not overflow
        self.target_scale_ = float(np.ldexp(np.std(np.ldexp(y, -exponent)), exponent)) or 1.0
        return x[:, self.columns_], ((y - self.target_mean_) / self.target_scale_).astype(np.float32)

    def _draw(self, rows: int, columns: int) -> tuple[_Weights, NDArray[np.int64]]:
        """Initial weights, uniform within ± 1 / sqrt(inputs of the layer), and the rows of each step [steps, B]."""
        rng = check_random_state(self.random_state)
        first, second = max(columns, 1) ** -0.5, self.hidden**-0.5
        start = _Weights(
            w=rng.uniform(-first, first, (columns, self.hidden)),
            b=rng.uniform(-first, first, self.hidden),
            v=rng.uniform(-second, second, self.hidden),
            c=rng.uniform(-second, second, 1),
        )
        epochs = -(-self.steps * self.batch_size // rows)
        order = np.concatenate([rng.permutation(rows) for _ in range(epochs)])[: self.steps * self.batch_size]
        return start, order.reshape(self.steps, self.batch_size)


def fit_together(
    models: Sequence[MLPHead], Xs: Sequence[Any], ys: Sequence[Any], progress: Callable[[int], None] | None = None
) -> None:
    """Trains E independent models in one loop. The result equals E calls of `fit` up to floating-point rounding, but is faster.

    Args:
        models: Models with equal settings, except `random_state`.
        Xs: Features [N, D] of each model; N and D may differ.
        ys: Targets [N] of each model.
        progress: Called from time to time with the number of steps done.

    Raises:
        ConfigError: If settings differ or are out of range.
    """
    for name in SETTINGS:
        if len({getattr(model, name) for model in models}) > 1:
            raise ConfigError(f"fit_together: the models differ in {name}. Train them one by one.")
    prepared = [model._prepare(X, y) for model, X, y in zip(models, Xs, ys)]
    drawn = [model._draw(*x.shape) for model, (x, _) in zip(models, prepared)]
    with _one_thread():
        trained = _train(
            models[0],
            x_END=_stack([x for x, _ in prepared]),
            y_EN=_stack([y for _, y in prepared]),
            start=_Weights(*map(_stack, zip(*(start for start, _ in drawn)))),
            order_TEB=np.stack([order for _, order in drawn], axis=1),
            progress=progress,
        )
    for model, weights in zip(models, trained):
        model.weights_ = weights._replace(w=weights.w[: len(model.columns_)])


def _stack(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Stacks arrays of the same rank and different sizes, padded with zeros."""
    size = np.max([a.shape for a in arrays], axis=0)
    return np.stack([np.pad(a, [(0, most - n) for most, n in zip(size, a.shape)]) for a in arrays]).astype(np.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch uses one thread within this context: the matrices are small, and on busy cores several threads are many times slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(
    settings: MLPHead,
    x_END: NDArray[np.float32],
    y_EN: NDArray[np.float32],
    start: _Weights,
    order_TEB: NDArray[np.int64],
    progress: Callable[[int], None] | None,
) -> list[_Weights]:
    """The training loop. The losses are summed, so that each model gets the gradient of its own loss only."""
    import torch

    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The device {device!r} cannot be used: {error}. Pass a different device, such as cpu.") from error
    x, y, order = (torch.from_numpy(array).to(device) for array in (x_END, y_EN, order_TEB))
    model_E1 = torch.arange(len(x), device=device)[:, None]
    w, b, v, c = net = _Weights(*(torch.from_numpy(part).to(device).requires_grad_() for part in start))
    optimiser = torch.optim.Adam(net, lr=settings.learning_rate, fused=True)
    for step, rows_EB in enumerate(order):
        h_EBH = torch.relu(torch.baddbmm(b[:, None, :], x[model_E1, rows_EB], w))
        y_EB = torch.baddbmm(c[:, :, None], h_EBH, v[:, :, None]).squeeze(2)
        loss = (y_EB - y[model_E1, rows_EB]).square().mean(dim=1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress is not None and (step + 1) % 250 == 0:
            progress(step + 1)
    return [_Weights(*parts) for parts in zip(*(part.detach().cpu().numpy() for part in net))]
