"""Evaluation of every set of features with every head, on the same splits and under several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..properties.features import Featurizer, compute_features, descriptor_preparation, rdkit_descriptors
from ..properties.heads import MLPHead, fit_together, svm
from ..properties.splits import Split, random_folds, scaffold_split
from .datasets import RegressionData

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Results", "evaluate", "named_heads", "results_of"]

BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}"  # of all fits
FITTED_AT_ONCE = 5  # MLPs that train together: bounds the memory, and more are not faster on a CPU


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of `evaluate`.

    Attributes:
        data: The data set.
        protocol: The splits and seeds, in words.
        runs: One row for each set of features, head and seed: `features, head, seed, tested, rmse, mae, r2`. Errors are pooled over all
            test rows of the seed, in the unit of the targets.
        predictions: One row for each test prediction: `features, head, seed, fold, row, smiles, target, prediction`.
        baseline_rmse: RMSE of predicting the mean of the training targets, averaged over seeds.
    """

    data: RegressionData
    protocol: str
    runs: pd.DataFrame
    predictions: pd.DataFrame
    baseline_rmse: float

    def summary(self) -> pd.DataFrame:
        """Mean and (sample) standard deviation over seeds of each metric: `features, head, rmse_mean, rmse_sd, ...`."""
        table = self.runs.groupby(["features", "head"], sort=False)[["rmse", "mae", "r2"]].agg(["mean", "std"])
        table.columns = [f"{metric}_{'sd' if kind == 'std' else kind}" for metric, kind in table.columns]
        return table.reset_index()


def named_heads(
    names: Sequence[str], mlp_steps: int = 10_000, device: str | None = None, *, precompute_kernel: bool = False
) -> dict[str, Any]:
    """Heads by name.

    Args:
        names: Names of heads; choices: svm, mlp.
        mlp_steps: Training steps of the MLP.
        device: Device of the MLP, see `MLPHead`.
        precompute_kernel: See `svm`.

    Raises:
        ConfigError: If a name is unknown, or if `mlp_steps` is less than 1.
    """
    if mlp_steps < 1:
        raise ConfigError(f"mlp_steps must be at least 1, found {mlp_steps}.")
    known = {"svm": svm(precompute_kernel), "mlp": MLPHead(steps=mlp_steps, device=device)}
    for name in names:
        if name not in known:
            raise ConfigError(f"Unknown head {name!r}. Known: {', '.join(known)}.")
    return {name: known[name] for name in names}


def evaluate(
    data: RegressionData,
    features: Mapping[str, Featurizer],
    heads: Mapping[str, Any] | None = None,
    *,
    split: str = "random",
    folds: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
    progress: bool | None = None,
) -> Results:
    """Tests each head on each set of features. Features are computed once, and all are tested on the same splits.

    Args:
        data: Molecules and targets.
        features: Functions or transformers from N SMILES to an array [N, D], by name.
        heads: Scikit-learn regressors, by name. Each fit uses a new clone with the seed as its `random_state`. None uses `svm` and `mlp`.
        split: "random" (k-fold cross-validation) or "scaffold" (20 % of the rows tested); see `splits`.
        folds: Number of folds of the random split.
        seeds: One repetition each, of the split and of the head's random numbers.
        progress: Show a progress bar on stderr. None shows it if stderr is a terminal.

    Raises:
        ConfigError: If `features`, `heads` or `seeds` is empty, if seeds repeat, or if the split is unknown.
        DataError: If there are too few molecules for the split, or if all targets are equal.
        InvalidShapeError: If features are not an array [N, D] of finite numbers.
    """
    heads = named_heads(("svm", "mlp")) if heads is None else heads
    for what, given in (("features", features), ("heads", heads), ("seeds", seeds)):
        if len(given) == 0:
            raise ConfigError(f"evaluate: {what} is empty. Pass at least one.")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"evaluate: seeds {tuple(seeds)} repeat, which would make the standard deviation too small. Pass each seed once."
        )
    if np.ptp(data.targets) == 0:
        raise DataError(
            f"All {len(data)} targets of {data.name} are {data.targets[0]}, so there is nothing to predict. Use other data."
        )
    splits = _splits(data, split, folds, seeds)
    blocks = []
    fits = len(features) * len(heads) * sum(map(len, splits.values()))
    with tqdm(total=fits, bar_format=BAR, disable=None if progress is None else not progress) as bar:
        for name, featurizer in features.items():
            bar.set_description(f"computing {name}")
            values = compute_features(name, featurizer, data.smiles)
            preparation = descriptor_preparation() if featurizer is rdkit_descriptors else None
            for head_name, head in heads.items():
                for seed, of_seed in splits.items():
                    bar.set_description(f"{name}, {head_name}, seed {seed}")
                    blocks += _predict(data, values, preparation, head, (name, head_name, seed), of_seed, bar)
    return results_of(data, pd.concat(blocks, ignore_index=True), split=split, folds=folds, seeds=seeds)


def results_of(data: RegressionData, predictions: pd.DataFrame, *, split: str, folds: int, seeds: Sequence[int]) -> Results:
    """Summarises test predictions, for example predictions that were kept in a file.

    Args:
        data: The data set.
        predictions: Rows as in `Results.predictions`.
        split: The split of the predictions, and the next two arguments likewise; see `evaluate`.
        folds: Number of folds of the random split.
        seeds: The seeds.

    Raises:
        ConfigError: If the split is unknown.
    """
    splits = _splits(data, split, folds, seeds)
    words = {
        "random": f"{folds}-fold cross-validation, random, all rows of a molecule in one fold",
        "scaffold": "20 % of the rows tested, split by Bemis-Murcko scaffold, large scaffolds in training",
    }
    return Results(
        data=data,
        protocol=f"{words[split]}; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        runs=_metrics(predictions),
        predictions=predictions,
        baseline_rmse=_baseline(data, splits),
    )


def _splits(data: RegressionData, split: str, folds: int, seeds: Sequence[int]) -> dict[int, list[Split]]:
    """The splits of each seed."""
    if split == "random":
        return {seed: random_folds(data.canonical, folds, seed) for seed in seeds}
    if split == "scaffold":
        return {seed: [scaffold_split(data.canonical, seed=seed)] for seed in seeds}
    raise ConfigError(f'split must be "random" or "scaffold", found {split!r}.')


def _predict(
    data: RegressionData,
    x: NDArray[np.float64],
    preparation: Any,
    head: Any,
    key: tuple[str, str, int],
    splits: list[Split],
    bar: tqdm,
) -> list[pd.DataFrame]:
    """Predictions of the test rows of each split."""
    blocks = []
    for start in range(0, len(splits), FITTED_AT_ONCE):
        some = splits[start : start + FITTED_AT_ONCE]
        prepared = [_prepare(preparation, x, split) for split in some]
        models = [_seeded(head, key[2]) for _ in some]
        _fit(models, [train for train, _ in prepared], [data.targets[split.train] for split in some], bar)
        for fold, (model, (_, test), rows) in enumerate(zip(models, prepared, some), start):
            block = {**dict(zip(("features", "head", "seed"), key)), "fold": fold, "row": rows.test}
            block |= {"smiles": [data.smiles[row] for row in rows.test], "target": data.targets[rows.test]}
            blocks.append(pd.DataFrame({**block, "prediction": model.predict(test)}))
    return blocks


def _prepare(preparation: Any, x: NDArray[np.float64], split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if preparation is None:
        return x[split.train], x[split.test]
    fitted = clone(preparation).fit(x[split.train])
    return fitted.transform(x[split.train]), fitted.transform(x[split.test])


def _seeded(head: Any, seed: int) -> Any:
    names = [name for name in head.get_params() if name.split("__")[-1] == "random_state"]
    return clone(head).set_params(**dict.fromkeys(names, seed))


def _fit(models: list[Any], xs: list[NDArray[np.float64]], ys: list[NDArray[np.float64]], bar: tqdm) -> None:
    before = bar.n
    if all(isinstance(model, MLPHead) for model in models):
        fits_per_step = len(models) / models[0].steps
        fit_together(models, xs, ys, progress=lambda step: bar.update(before + fits_per_step * step - bar.n))
    else:
        for model, x, y in zip(models, xs, ys):
            model.fit(x, y)
    bar.update(before + len(models) - bar.n)


def _metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (features, head, seed), run in predictions.groupby(["features", "head", "seed"], sort=False):
        truth, guess = run["target"], run["prediction"]
        exponent = _exponent(np.ptp(truth), np.abs(guess - truth).max())
        scaled = np.ldexp(truth, -exponent), np.ldexp(guess, -exponent)
        errors = {
            "rmse": np.ldexp(root_mean_squared_error(*scaled), exponent),
            "mae": np.ldexp(mean_absolute_error(*scaled), exponent),
            "r2": r2_score(*scaled),
        }
        rows.append({"features": features, "head": head, "seed": seed, "tested": len(run), **errors})
    return pd.DataFrame(rows)


def _exponent(*sizes: float) -> int:
    """The exponent of the power of two above the largest size. Divided by it, which is exact, sizes have squares without overflow."""
    return int(np.frexp(max(sizes))[1])


def _baseline(data: RegressionData, splits: dict[int, list[Split]]) -> float:
    errors = []
    for of_seed in splits.values():
        differences = np.concatenate([data.targets[s.test] - data.targets[s.train].mean() for s in of_seed])
        exponent = _exponent(np.abs(differences).max())
        errors.append(np.ldexp(np.sqrt(np.square(np.ldexp(differences, -exponent)).mean()), exponent))
    return float(np.mean(errors))
