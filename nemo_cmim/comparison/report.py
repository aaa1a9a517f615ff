"""The table and the figure of a comparison."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

__all__ = ["draw", "markdown"]

DECODING = {"token_accuracy": "token accuracy", "reconstruction": "reconstruction", "validity": "validity"}


def markdown(measured: pd.DataFrame) -> str:
    """One table: a row for each objective and kind of embedding, as the paper's Table 1 has it.

    Args:
        measured: Rows `objective, seed, kind, measure, value`: RMSE under a measure "DATA HEAD", and shares under the names of
            `measure.decoding` with an empty kind.
    """
    decoding = measured[measured["measure"].isin(DECODING)]
    errors = measured[~measured["measure"].isin(DECODING)]
    columns = list(dict.fromkeys(errors["measure"]))
    header = ["objective", "embedding", *columns, *DECODING.values()]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for (objective, kind), rows in errors.groupby(["objective", "kind"], sort=False):
        cells = [_cell(rows.loc[rows["measure"] == column, "value"], "{:.3f}") for column in columns]
        of_model = decoding[decoding["objective"] == objective]
        cells += [_cell(of_model.loc[of_model["measure"] == name, "value"], "{:.1%}") for name in DECODING]
        lines.append(f"| {' | '.join([objective, kind, *cells])} |")
    return "\n".join(lines)


def _cell(values: pd.Series, style: str) -> str:
    if values.empty:
        return ""
    mean = style.format(values.mean())
    return mean if len(values) == 1 else f"{mean} ± {style.format(values.std())}"


def draw(measured: pd.DataFrame, path: Path) -> None:
    """One picture: RMSE of each objective, a panel for each data set and head, and how well each decodes. Each run is a point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    objectives = list(dict.fromkeys(measured["objective"]))[::-1]
    names = [name for name in dict.fromkeys(measured["measure"]) if name not in DECODING]
    figure = Figure(figsize=(3.2 * (len(names) // 2 + 2), 0.3 * len(objectives) * 2 + 2), layout="constrained")
    rows = 2 if len(names) > 1 else 1
    panels = figure.subplots(rows, -(-len(names) // rows) + 1, sharey=True, squeeze=False)
    for panel, name in zip(panels[:, :-1].T.flat, names):
        rows_of = measured[measured["measure"] == name]
        for kind, style in zip(dict.fromkeys(rows_of["kind"]), ("C0o", "C1D", "C2s")):
            points = rows_of[rows_of["kind"] == kind]
            panel.plot(points["value"], [objectives.index(o) for o in points["objective"]], style, alpha=0.7, label=kind or "other")
        panel.set(title=name, xlabel="RMSE")
    for panel, name in zip(panels[:, -1], ("token_accuracy", "reconstruction")):
        points = measured[measured["measure"] == name]
        panel.plot(points["value"], [objectives.index(o) for o in points["objective"]], "C3o", alpha=0.7)
        panel.set(title=DECODING[name], xlabel="share")
    for panel in panels.flat:
        panel.set_yticks(range(len(objectives)), objectives)
        panel.grid(axis="y", alpha=0.3)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    FigureCanvasAgg(figure).print_png(str(path))
