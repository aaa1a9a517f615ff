"""Scores of an embedding on property sets that recipes are chosen by. A chosen recipe looks better on them than on other sets.

    python -m tools.validation MODEL... --held-out DATA --sets FOLDER

prints them for each model, with token accuracy, exact reconstruction and log p_k1 (batches of 64) of molecules of DATA's test split.

FOLDER has CSV files with a column `smiles`. A column `target` is predicted by an SVM (RBF kernel, C = 10; RMSE, lower is better). All other
columns are classes 0 and 1, or empty, and are predicted by logistic regression (ROC-AUC, averaged over columns, higher is better). Both on
standardised vectors, by 5-fold cross-validation with random folds. A molecule that the model cannot embed gets the mean vector.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from nemo_cmim.errors import DataError
from nemo_cmim.evaluation.decoding import decoding
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.shipped import load
from nemo_cmim.losses import log_p_k1
from nemo_cmim.markdown import markdown_table

__all__ = ["LOWER_IS_BETTER", "mean_log_p_k1", "property_sets", "validation_scores"]

LOWER_IS_BETTER = "RMSE"
_BATCH = 64
_FEWEST = 25  # molecules of the rarer class; columns with fewer have no reliable ROC-AUC


def property_sets(folder: Path) -> dict[str, pd.DataFrame]:
    """The CSV files of a folder, each with a column `smiles` and the columns that can be predicted, by name and metric.

    Raises:
        DataError: If there is no file, or if one of them has nothing that can be predicted.
    """
    sets = {}
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path)
        others = [column for column in table if column != "smiles"]
        if "smiles" not in table:
            raise DataError(f"{path} has no column `smiles`; its columns: {', '.join(table)}.")
        if others == ["target"]:
            sets[f"{path.stem} {LOWER_IS_BETTER}"] = table
        elif classes := [column for column in others if _has_two_classes(table[column])]:
            sets[f"{path.stem} ROC-AUC"] = table[["smiles", *classes]]
        else:
            raise DataError(f"{path} has neither the one column `target`, nor classes with {_FEWEST} molecules each.")
    if not sets:
        raise DataError(f"{folder} has no CSV file with properties.")
    return sets


def validation_scores(model: CMIMModel, folder: Path, kind: str = "informative") -> dict[str, float]:
    """The score of each set, by its name and metric."""
    scores = {}
    for name, table in property_sets(folder).items():
        vectors = _vectors(model, table.pop("smiles"), kind)
        if name.endswith(LOWER_IS_BETTER):
            scores[name] = _rmse(vectors, table["target"].to_numpy())
        else:
            scores[name] = float(np.mean([_roc_auc(vectors, table[column]) for column in table]))
    return scores


def _has_two_classes(labels: pd.Series) -> bool:
    counts = labels.value_counts()
    return len(counts) == 2 and counts.min() >= _FEWEST


def _vectors(model: CMIMModel, smiles: pd.Series, kind: str) -> NDArray[np.float32]:
    is_valid = np.array([model.invalid_reason(one) is None for one in smiles])
    vectors = np.empty((len(smiles), model.width(kind)), np.float32)
    vectors[is_valid] = model.embed(smiles[is_valid], kind)
    vectors[~is_valid] = vectors[is_valid].mean(0)
    return vectors


def _rmse(vectors: NDArray[np.float32], targets: NDArray[np.float64]) -> float:
    mean, spread = targets.mean(), targets.std()
    head = make_pipeline(StandardScaler(), SVR(C=10))
    folds = KFold(5, shuffle=True, random_state=0)
    return float(
        root_mean_squared_error(targets, mean + spread * cross_val_predict(head, vectors, (targets - mean) / spread, cv=folds))
    )


def _roc_auc(vectors: NDArray[np.float32], labels: pd.Series) -> float:
    known = labels.notna().to_numpy()
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    classes = labels[known].astype(int)
    return float(roc_auc_score(classes, cross_val_predict(head, vectors[known], classes, cv=folds, method="decision_function")))


def mean_log_p_k1(model: CMIMModel, smiles: Sequence[str], tau: float) -> float:
    """Mean log p_k1 of the posterior means, in nats, over random batches of the molecules."""
    means = torch.as_tensor(model.encode(smiles).mean_BKD)[torch.randperm(len(smiles), generator=torch.Generator().manual_seed(0))]
    batches = means.split(_BATCH)[: max(1, len(means) // _BATCH)]
    return float(torch.cat([log_p_k1(batch, tau) for batch in batches]).mean())


def main() -> None:
    """Command line of the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="shipped name or .nemo file")
    add("--held-out", type=Path, required=True, metavar="DATA", help="folder written by `nemo-cmim prepare`")
    add("--sets", type=Path, required=True, metavar="FOLDER", help="folder of CSV files with properties")
    add("--molecules", type=int, default=1000, metavar="N", help="number of molecules of DATA")
    args = parser.parse_args()
    property_sets(args.sets)  # errors come before the decoding
    rows = []
    for name in args.models:
        model = load(name)
        smiles = held_out_molecules(args.held_out, args.molecules, model.config.network.max_tokens)
        log_p = mean_log_p_k1(model, smiles, model.config.objective.tau)
        scores = decoding(model, smiles) | {"log p_k1": log_p} | validation_scores(model, args.sets)
        rows.append({"model": name} | {key: f"{value:.3f}" for key, value in scores.items()})
    print(markdown_table(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
