"""Fine-tuned networks against heads on frozen vectors of the same model, on the same folds.

`python -m benchmarks.fine_tuning --data FOLDER... --work FOLDER [--record]`. Each CSV file in the folders has a column `smiles`; the
others are targets: classes if all values are 0 or 1, else values. Finished folds are kept in the work folder: the same command
continues there. Takes hours on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import roc_auc_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.fitted import command_line
from benchmarks.report import record
from nemo_cmim.downstream import FeatureScaler, Split, random_folds, svm
from nemo_cmim.files import atomic_write
from nemo_cmim.inference import CMIMModel, list_models, load
from nemo_cmim.molecules import canonical_smiles
from nemo_cmim.properties import FineTuner, Recipe

FROZEN = ("svm", "svm, scaled targets")
START, TUNED = "start of fine-tuning", "fine-tuned"
FOLDS, SEED = 5, 0

Floats = NDArray[np.float64]


class Data(NamedTuple):
    """One file: its canonical SMILES, targets [N, T] (NaN is missing) and the number of rows that the model cannot read."""

    name: str
    smiles: NDArray[np.object_]
    targets_NT: Floats
    left_out: int

    @property
    def task(self) -> str:
        """Task of a `FineTuner`."""
        return "classification" if np.isin(self.targets_NT[~np.isnan(self.targets_NT)], (0, 1)).all() else "regression"


def main() -> None:
    """Measures all files, prints the table, and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders of CSV files")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where finished folds are kept")
    parser.add_argument("--scope", default=Recipe().scope, help="what is trained, see Recipe (default: %(default)s)")
    parser.add_argument("--members", type=int, default=3, help="networks that are averaged (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    model = load(list_models()[0])
    lines, better = [], 0
    files = sorted((file for folder in args.data for file in folder.glob("*.csv")), key=lambda file: file.stat().st_size)
    for file in files:
        data = read(file, model)
        scores = measure(data, model, Recipe(scope=args.scope), args.members, args.work / args.scope.replace(":", "_") / data.name)
        frozen = [scores[name] for name in (*FROZEN, START) if name in scores]
        better += scores[TUNED] > max(frozen) if data.task == "classification" else scores[TUNED] < min(frozen)
        cells = [f"{scores[name]:.3f}" if name in scores else "-" for name in (*FROZEN, START, TUNED)]
        metric = "ROC-AUC" if data.task == "classification" else "RMSE"
        lines.append(f"| {data.name} | {len(data.smiles):,} ({data.left_out}) | {metric} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    names = " | ".join((*FROZEN, START, TUNED))
    table = [f"| data | rows (left out) | metric | {names} |", "|---|---|---|---|---|---|---|", *lines, ""]
    notes = (
        f"Model {model.name}, `informative` vectors, {FOLDS}-fold random cross-validation with seed {SEED}, scope {args.scope}, "
        f"{args.members} members. RMSE is over all test rows, ROC-AUC the mean over targets of the value over all test rows. `svm` is the "
        "head of `nemo-cmim regress` (for classes `SVC`), whose targets are not scaled. The start of fine-tuning is the frozen head that "
        f"`FineTuner` trains the network to correct. Fine-tuned is better than each of the frozen columns on {better} of {len(files)} sets."
    )
    print(notes)
    if args.record:
        record("Fine-tuning", command_line("fine_tuning"), [*table, notes], SEED)


def read(file: Path, model: CMIMModel) -> Data:
    """Reads a CSV file; rows that the model cannot embed are left out."""
    table = pd.read_csv(file)
    usable = [model.invalid_reason(smiles) is None for smiles in table["smiles"]]
    table = table[usable]
    smiles = np.array([canonical_smiles(one) for one in table["smiles"]], dtype=object)
    return Data(file.stem, smiles, table.drop(columns="smiles").to_numpy(np.float64), len(usable) - len(table))


def measure(data: Data, model: CMIMModel, recipe: Recipe, members: int, work: Path) -> dict[str, float]:
    """Metric of each method over all folds."""
    x_ND = model.embed(list(data.smiles))
    predictions: dict[str, Floats] = {}
    for fold, split in enumerate(random_folds(list(data.smiles), FOLDS, SEED)):
        kept = work / f"fold-{fold}.npz"
        if not kept.exists():
            work.mkdir(parents=True, exist_ok=True)
            of_fold = frozen(data, x_ND, split) | tuned(data, model, x_ND, split, recipe, members, work / f"fold-{fold}")
            with atomic_write(kept) as path, path.open("wb") as out:
                np.savez(out, **of_fold)  # type: ignore[arg-type]  # its other argument is allow_pickle
        with np.load(kept) as arrays:
            for name in arrays.files:
                predictions.setdefault(name, np.full(data.targets_NT.shape, np.nan))[split.test] = arrays[name]
    return {name: score(data, found) for name, found in predictions.items()}


def frozen(data: Data, x_ND: NDArray[np.float32], split: Split) -> dict[str, Floats]:
    """Test predictions [n, T] of the heads on frozen vectors."""
    if data.task == "regression":
        heads = (svm(), TransformedTargetRegressor(svm(), transformer=StandardScaler()))
        return {name: each_target(head, data, x_ND, split, "predict") for name, head in zip(FROZEN, heads)}
    return {FROZEN[0]: each_target(make_pipeline(FeatureScaler(), SVC()), data, x_ND, split, "decision_function")}


def each_target(head: object, data: Data, x_ND: NDArray[np.float32], split: Split, method: str) -> Floats:
    """Fits the head to the known rows of each target. A target of one class is predicted as 0."""
    found = np.zeros((len(split.test), data.targets_NT.shape[1]))
    for column, target in enumerate(data.targets_NT.T):
        rows = split.train[~np.isnan(target[split.train])]
        if len(np.unique(target[rows])) > 1:
            fitted = head.fit(x_ND[rows], target[rows])  # type: ignore[attr-defined]
            found[:, column] = getattr(fitted, method)(x_ND[split.test])
    return found


def tuned(
    data: Data, model: CMIMModel, x_ND: NDArray[np.float32], split: Split, recipe: Recipe, members: int, checkpoint: Path
) -> dict[str, Floats]:
    """Test predictions [n, T] after fine-tuning, and of the frozen head that it starts from."""
    is_classes = data.task == "classification"
    classes = (2,) * data.targets_NT.shape[1] if is_classes else None
    tuner = FineTuner(data.task, model, recipe=recipe, members=members, classes=classes, checkpoint=checkpoint, random_state=SEED)
    tuner.fit(data.smiles[split.train].tolist(), data.targets_NT[split.train])
    predicted = tuner.predict(data.smiles[split.test].tolist())
    assert tuner.frozen_ is not None
    start = tuner.frozen_.outputs(x_ND[split.test])
    start = start[:, 1::2] - start[:, ::2] if is_classes else start * tuner.scale_ + tuner.centre_
    return {START: start, TUNED: np.stack([p[:, 1] for p in predicted], 1) if is_classes else np.asarray(predicted)}


def score(data: Data, predictions_NT: Floats) -> float:
    """RMSE or ROC-AUC, averaged over targets."""
    metric = roc_auc_score if data.task == "classification" else root_mean_squared_error
    scores: Sequence[float] = []
    for target, found in zip(data.targets_NT.T, predictions_NT.T):
        known = ~np.isnan(target)
        scores = [*scores, metric(target[known], found[known])]
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
