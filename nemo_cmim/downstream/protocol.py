"""Every feature with every head, on the same splits, with repeated seeds."""

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
from .datasets import RegressionData
from .features import Featurizer, compute_features, descriptor_preparation, rdkit_descriptors
from .heads import MLPHead, fit_together, svm
from .splits import Split, random_folds, scaffold_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Results", "evaluate", "named_heads"]

BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}"  # of all fits
FITTED_AT_ONCE = 5  # MLPs that train side by side: bounds the memory, and more are no faster on a CPU


@dataclass(frozen=True, kw_only=True)
class Results:
    """What `evaluate` measured.

    Attributes:
        data: The molecules.
        protocol: The splits and their repetition, in words.
        runs: One row for each feature, head and seed: `features, head, seed, tested, rmse, mae, r2`. Errors are over all
            rows tested under the seed together, in the unit of the targets.
        predictions: One row for each prediction: `features, head, seed, fold, row, smiles, target, prediction`.
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


def named_heads(names: Sequence[str], mlp_steps: int = 10_000, device: str | None = None) -> dict[str, Any]:
    """The heads called `svm` and `mlp`.

    Raises:
        ConfigError: Another name, or no steps.
    """
    if mlp_steps < 1:
        raise ConfigError(f"The MLP needs at least 1 step, found {mlp_steps}.")
    known = {"svm": svm(), "mlp": MLPHead(steps=mlp_steps, device=device)}
    for name in names:
        if name not in known:
            raise ConfigError(f"Unknown head {name!r}. There are: {', '.join(known)}.")
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
        features: By name, a function or a transformer from N SMILES to an array [N, D].
        heads: By name, scikit-learn regressors, of which each fit gets a fresh clone with the seed as its `random_state`. None:
            `svm` and `mlp`.
        split: "random" (k-fold cross-validation), or "scaffold" (20 % of the rows tested); see `splits`.
        folds: Of the random split.
        seeds: One repetition each, of the split and of the head's own randomness.
        progress: Show a bar on stderr; by default where that is a terminal.

    Raises:
        ConfigError: Nothing to test, or an unknown split.
        DataError: Too few molecules for the split, or targets that are all equal.
        InvalidShapeError: Features that are no array [N, D] of finite numbers.
    """
    heads = named_heads(("svm", "mlp")) if heads is None else heads
    for what, given in (("features", features), ("heads", heads), ("seeds", seeds)):
        if len(given) == 0:
            raise ConfigError(f"evaluate: {what} is empty; name at least one.")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"evaluate: seeds {tuple(seeds)} repeat, which would make the spread too small.")
    if np.ptp(data.targets) == 0:
        raise DataError(f"All {len(data)} targets of {data.name} are {data.targets[0]}: there is nothing to predict.")
    splits, protocol = _plan(data, split, folds, seeds)
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
    predictions = pd.concat(blocks, ignore_index=True)
    return Results(
        data=data, protocol=protocol, runs=_metrics(predictions), predictions=predictions, baseline_rmse=_baseline(data, splits)
    )


def _plan(data: RegressionData, split: str, folds: int, seeds: Sequence[int]) -> tuple[dict[int, list[Split]], str]:
    """The splits of each seed, and the protocol in words."""
    repeats = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    if split == "random":
        words = f"{folds}-fold cross-validation, random, rows of one molecule in one fold"
        return {seed: random_folds(data.canonical, folds, seed) for seed in seeds}, f"{words}; {repeats}"
    if split == "scaffold":
        words = "20 % of the rows tested, split by Bemis-Murcko scaffold, large scaffolds in training"
        return {seed: [scaffold_split(data.canonical, seed=seed)] for seed in seeds}, f"{words}; {repeats}"
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
        share = len(models) / models[0].steps
        fit_together(models, xs, ys, progress=lambda step: bar.update(before + share * step - bar.n))
    else:
        for model, x, y in zip(models, xs, ys):
            model.fit(x, y)
    bar.update(before + len(models) - bar.n)


def _metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (features, head, seed), run in predictions.groupby(["features", "head", "seed"], sort=False):
        truth, guess = run["target"], run["prediction"]
        errors = {
            "rmse": root_mean_squared_error(truth, guess),
            "mae": mean_absolute_error(truth, guess),
            "r2": r2_score(truth, guess),
        }
        rows.append({"features": features, "head": head, "seed": seed, "tested": len(run), **errors})
    return pd.DataFrame(rows)


def _baseline(data: RegressionData, splits: dict[int, list[Split]]) -> float:
    errors = []
    for of_seed in splits.values():
        squares = [np.square(data.targets[s.test] - data.targets[s.train].mean()) for s in of_seed]
        errors.append(np.sqrt(np.concatenate(squares).mean()))
    return float(np.mean(errors))
