"""Results of an evaluation as Markdown tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..downstream import mean_and_sd
from ..markdown import markdown_table
from .decoding import MEASURES

__all__ = ["HEADS", "comparison_table", "decoding_table", "differences_table", "rmse_table", "seen_table"]

HEADS = {"svm": "SVM", "mlp": "MLP"}
"""Names of the heads in tables."""

_LEVEL = 0.05


def rmse_table(runs: pd.DataFrame) -> str:
    """A row for each set of features, a column for each data set and head: mean ± standard deviation over seeds.

    Args:
        runs: Rows as `measure.rmse_of_runs` returns them, of one split.
    """
    columns = list(dict.fromkeys(zip(runs["data"], runs["head"])))
    rows = []
    for features, of_features in runs.groupby("features", sort=False):
        values = [of_features.loc[(of_features["data"] == data) & (of_features["head"] == head), "rmse"] for data, head in columns]
        rows.append([str(features), *map(mean_and_sd, values)])
    return markdown_table(["features", *(f"{data} {HEADS.get(head, head)}" for data, head in columns)], rows)


def differences_table(tests: pd.DataFrame) -> str:
    """A row for each contrast: difference and p-value, in bold where the corrected p-value is below 0.05.

    Args:
        tests: Rows as `statistics.paired_tests` returns them.
    """
    columns = list(dict.fromkeys(zip(tests["data"], tests["head"])))
    rows = [
        [str(name), *map(_tested, of_contrast["difference"], of_contrast["p"], of_contrast["p_holm"])]
        for name, of_contrast in tests.groupby("contrast", sort=False)
    ]
    return markdown_table(["difference", *(f"{data} {HEADS.get(head, head)}" for data, head in columns)], rows)


def _tested(difference: float, p: float, p_holm: float) -> str:
    text = f"{difference:+.3f}"
    if np.isnan(p):
        return text
    text += f" (p = {p:.3f})" if p >= 0.001 else f" (p = {p:.0e})"
    return f"**{text}**" if p_holm < _LEVEL else text


def seen_table(seen: pd.DataFrame) -> str:
    """How many rows of each data set are in the pretraining data: in its training split, and in any split.

    Args:
        seen: The result of `leakage.find_seen`.
    """
    rows = []
    for name, of_set in seen.groupby("data", sort=False):
        found = [f"{of_set[f'{kind}_train'].sum():,} / {of_set[kind].sum():,}" for kind in ("same", "flat")]
        rows.append([str(name), *found, f"{len(of_set) - of_set['flat'].sum():,}"])
    header = ["data", "rows in the train split / in any split", "without regard to stereo", "rows left (in no split)"]
    return markdown_table(header, rows)


def decoding_table(decoded: pd.DataFrame) -> str:
    """A row for each model.

    Args:
        decoded: The result of `decoding.decode_all`.
    """
    rows = [
        [model, f"{count:,}", *("no decoder" if np.isnan(fraction) else f"{fraction:.1%}" for fraction in fractions)]
        for model, count, *fractions in decoded.itertuples(index=False)
    ]
    return markdown_table(["model", "molecules", *MEASURES.values()], rows)


def comparison_table(measured: pd.DataFrame, *, objective_header: str = "objective") -> str:
    """A row for each objective and kind of embedding, in the form of the paper's Table 1.

    Args:
        measured: Rows as `entries.measure_entries` returns them.
        objective_header: Header of the first column, for entries that differ in something else than the objective.
    """
    decoded = measured[measured["measure"].isin(MEASURES)]
    errors = measured[~measured["measure"].isin(MEASURES)]
    columns = list(dict.fromkeys(errors["measure"]))
    rows = []
    for (objective, kind), of_row in errors.groupby(["objective", "kind"], sort=False):
        cells = [mean_and_sd(of_row.loc[of_row["measure"] == column, "value"]) for column in columns]
        of_model = decoded[decoded["objective"] == objective]
        cells += [mean_and_sd(of_model.loc[of_model["measure"] == name, "value"], "{:.1%}") for name in MEASURES]
        rows.append([str(objective), str(kind), *cells])
    return markdown_table([objective_header, "embedding", *columns, *MEASURES.values()], rows)
