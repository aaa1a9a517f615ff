"""Predictions as a table, with intervals or sets and the distance to the training molecules.

Shape letters: N molecules, T targets, C classes of a target, D columns of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .feature_sets import FeatureSet
from .inputs import Molecules
from .intervals import conformal_quantile, prediction_sets
from .state import State
from .targets import Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_columns", "column_names", "embeddings", "most_probable", "prediction_table"]

_AT_ONCE = 8192  # molecules whose features are in memory
_BETWEEN = "; "  # labels of a set


def column_names(targets: Targets) -> list[str]:
    """Names of the columns of `prediction_table`."""
    names = ["smiles"]
    for number, target in enumerate(targets.names):
        if targets.classes:
            names += [target, *(f"{target}_p_{label}" for label in targets.classes[number]), f"{target}_set"]
        else:
            names += [target, f"{target}_lower", f"{target}_upper"]
    return [*names, "nearest_training", "tanimoto", "embedding_distance", "reason"]


def check_columns(targets: Targets) -> None:
    """Raises a `DataError` if a target has a name that makes two columns of the table equal, or a label that no set can hold."""
    names = column_names(targets)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"The table of predictions would have two columns {twice!r}. Rename the target {twice!r}, or the one it belongs to."
        )
    for name, labels in zip(targets.names, targets.classes):
        for label in map(str, labels):
            if _BETWEEN in label:
                raise DataError(
                    f"The target {name!r} has the class {label!r}. {_BETWEEN!r} separates classes of a set: rename the class."
                )


def prediction_table(state: State, molecules: Molecules, coverage: float) -> pd.DataFrame:
    """A row for each molecule, in order; see `PropertyModel.predict_table`."""
    index = {smiles: number for number, smiles in enumerate(dict.fromkeys(filter(None, molecules.canonical)))}
    distinct = list(index)
    parts = [_columns(state, distinct[start : start + _AT_ONCE], coverage) for start in range(0, len(distinct), _AT_ONCE)]
    names = column_names(state.targets)[1:-1]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
    rows = [index.get(smiles, -1) for smiles in molecules.canonical]
    if -1 in rows:  # integers and booleans stay what they are beside missing ones
        labels = list(state.targets.names) if state.targets.classes else []
        table[labels] = table[labels].astype(object)
    table = table.reindex(rows).reset_index(drop=True)  # -1 is not in the index: a row of missing values
    table.insert(0, "smiles", molecules.given)
    table["reason"] = pd.Series([molecules.reasons.get(row) for row in range(len(rows))], dtype=object)
    return table


def _columns(state: State, smiles: Sequence[str], coverage: float) -> pd.DataFrame:
    """The columns of valid molecules."""
    with state.features.computed(smiles):
        predicted: Any = state.predictor.predict(smiles)
        nearest = state.domain.nearest(smiles, embeddings(state.features, smiles))
    columns: dict[str, Any] = {}
    if state.targets.classes:
        for name, labels, scores, of_target in zip(state.targets.names, state.targets.classes, state.scores, predicted):
            columns |= _class_columns(name, labels, of_target, conformal_quantile(scores, coverage))
    else:
        widths = np.array([conformal_quantile(scores, coverage) for scores in state.scores])
        middle = state.transform.backward(predicted)
        lower, upper = state.transform.backward(predicted - widths), state.transform.backward(predicted + widths)
        for number, name in enumerate(state.targets.names):
            columns |= {name: middle[:, number], f"{name}_lower": lower[:, number], f"{name}_upper": upper[:, number]}
    return pd.DataFrame(
        {
            **columns,
            "nearest_training": nearest.smiles,
            "tanimoto": nearest.tanimoto,
            "embedding_distance": nearest.distance,
        }
    )


def _class_columns(name: str, labels: NDArray[Any], probabilities_NC: NDArray[np.float64], quantile: float) -> dict[str, Any]:
    sets = prediction_sets(probabilities_NC, quantile)
    texts = [str(label) for label in labels]
    return {
        name: labels[probabilities_NC.argmax(axis=1)],
        **{f"{name}_p_{text}": probabilities_NC[:, code] for code, text in enumerate(texts)},
        f"{name}_set": [_BETWEEN.join(text for text, inside in zip(texts, row) if inside) for row in sets],
    }


def embeddings(features: FeatureSet, smiles: Sequence[str]) -> NDArray[np.float64] | None:
    """The first embedding of N canonical SMILES, [N, D]; None if there is none among the features."""
    columns = features.embedding_columns()
    return None if columns is None else features(smiles)[:, columns]


def most_probable(probabilities_NC: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[Any]:
    """The most probable label of each row; None for rows of NaN."""
    known = ~np.isnan(probabilities_NC[:, 0])
    if known.all():
        return labels[probabilities_NC.argmax(axis=1)]
    found = np.full(len(known), None, dtype=object)
    found[known] = labels[probabilities_NC[known].argmax(axis=1)]
    return found
