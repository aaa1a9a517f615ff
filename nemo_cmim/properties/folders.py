"""Folders with a given split, as BioNeMo's downstream tasks have them: `train/x000.csv`, `val/x000.csv`, `test/x000.csv`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..molecules import standard_smiles
from ..steps import Steps, check_steps
from .data import PropertyData
from .intervals import conformal_quantile, prediction_sets
from .metrics import classification_metrics, regression_metrics
from .targets import is_missing

if TYPE_CHECKING:
    from .model import PropertyModel

__all__ = ["TRAIN", "check_parts", "measure", "part_files"]

TRAIN = "train"
_TESTED = ("val", "test")


def part_files(folder: str | Path) -> dict[str, list[Path]]:
    """The files `x*.csv`, sorted, of the parts `train`, `val` and `test` of a folder. The part `val` or `test` may be missing.

    Raises:
        DataError: If the folder, its training part, or both other parts are missing, or a part has no such file.
    """
    folder = Path(folder)
    parts = [part for part in (TRAIN, *_TESTED) if (folder / part).is_dir()]
    if TRAIN not in parts or len(parts) == 1:
        raise DataError(
            f"{folder} must be a folder that contains the folders train, and val or test, with files x*.csv; "
            f"found {', '.join(parts) or 'none of them'}. Name such a folder, or a file instead."
        )
    found = {part: sorted((folder / part).glob("x*.csv")) for part in parts}
    for part, files in found.items():
        if not files:
            raise DataError(f"{folder / part} contains no file x*.csv. Add the files, or remove the folder.")
    return found


def check_parts(training: PropertyData, parts: Mapping[str, PropertyData], task: str, standardise: Steps = ()) -> None:
    """Checks that the parts can be compared with predictions. A warning says how many of their molecules are also in the training part.

    Args:
        training: The rows of the fit.
        parts: Other rows, with the same targets.
        task: "regression" or "classification".
        standardise: Steps that change each molecule first.

    Raises:
        DataError: If a label is not one of those of `training`.
    """
    steps = check_steps(standardise)
    seen = {standard_smiles(smiles, steps) for smiles in training.smiles}
    for part, data in parts.items():
        known = sum(standard_smiles(smiles, steps) in seen for smiles in data.smiles)
        if known:
            warnings.warn(
                f"{known:,} of {len(data.smiles):,} rows of {part} have molecules that are also in {TRAIN}.", stacklevel=2
            )
        for name in data.targets if task == "classification" else ():
            labels = {_label(cell) for cell in training.targets[name] if not is_missing(cell)}
            for place, cell in zip(data.places, data.targets[name]):
                if not is_missing(cell) and _label(cell) not in labels:
                    raise DataError(
                        f"{place}: {name!r} is {_label(cell)!r}, which is not a label of {TRAIN}. Correct it, or leave the row out."
                    )


def measure(model: PropertyModel, parts: Mapping[str, PropertyData]) -> pd.DataFrame:
    """Metrics of predictions of other rows than those of the fit, after `check_parts`. The card of the model keeps them, as `parts`.

    Args:
        model: The fitted model.
        parts: Other rows, with the same targets, by the name of the part.

    Returns:
        `part, target, metric, value, rows`. Metrics are those of `PropertyModel.metrics_`, and `coverage`, the fraction of the true values
        that are in the prediction intervals or sets.
    """
    rows = [row for part, data in parts.items() for row in _metrics(model, data, part)]
    model.card_["parts"] = [{**row, "value": row["value"] if np.isfinite(row["value"]) else None} for row in rows]
    return pd.DataFrame(rows, columns=["part", "target", "metric", "value", "rows"])


def _metrics(model: PropertyModel, data: PropertyData, part: str) -> list[dict[str, Any]]:
    """The rows of `measure` for a part."""
    table = model.predict_table(data.smiles)
    classes: Any = getattr(model, "classes_", None)
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(model.target_names_):
        is_known = np.array([not is_missing(cell) for cell in data.targets[name]])
        if not is_known.any():
            continue
        measured, found = data.targets[name][is_known], table[is_known]
        if model.task == "classification":
            labels = (classes if len(model.target_names_) == 1 else classes[number]).tolist()
            probabilities_NC = found[[f"{name}_p_{label}" for label in labels]].to_numpy(dtype=np.float64)
            codes_N = np.array([labels.index(_label(cell)) for cell in measured])
            metrics = classification_metrics(codes_N, probabilities_NC)
            sets_NC = prediction_sets(probabilities_NC, conformal_quantile(model._state.scores[number], model.coverage))
            metrics["coverage"] = float(sets_NC[np.arange(len(codes_N)), codes_N].mean())
        else:
            truth_N = measured.to_numpy(dtype=np.float64)
            metrics = regression_metrics(truth_N, found[name].to_numpy())
            metrics["coverage"] = float(np.mean((found[f"{name}_lower"] <= truth_N) & (truth_N <= found[f"{name}_upper"])))
        rows += [
            {"part": part, "target": name, "metric": key, "value": value, "rows": len(found)} for key, value in metrics.items()
        ]
    return rows


def _label(cell: Any) -> Any:
    """A label as `PropertyModel` keeps it."""
    return cell.strip() if isinstance(cell, str) else cell
