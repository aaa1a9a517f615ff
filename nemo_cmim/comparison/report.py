"""The table and the figure of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..downstream import markdown_table, mean_and_sd

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["draw", "figure", "markdown"]

DECODING = {"token_accuracy": "token accuracy", "reconstruction": "reconstruction", "validity": "validity"}


def markdown(measured: pd.DataFrame, *, objective_header: str = "objective") -> str:
    """One table: a row for each objective and kind of embedding, as the paper's Table 1 has it.

    Args:
        measured: Rows `objective, seed, kind, measure, value`: RMSE under a measure "DATA HEAD", and shares under the names of
            `measure.decoding` with an empty kind.
        objective_header: Head of the first column, for rows that differ in something else.
    """
    decoding = measured[measured["measure"].isin(DECODING)]
    errors = measured[~measured["measure"].isin(DECODING)]
    columns = list(dict.fromkeys(errors["measure"]))
    header = [objective_header, "embedding", *columns, *DECODING.values()]
    lines = []
    for (objective, kind), rows in errors.groupby(["objective", "kind"], sort=False):
        cells = [mean_and_sd(rows.loc[rows["measure"] == column, "value"]) for column in columns]
        of_model = decoding[decoding["objective"] == objective]
        cells += [mean_and_sd(of_model.loc[of_model["measure"] == name, "value"], "{:.1%}") for name in DECODING]
        lines.append([objective, kind, *cells])
    return markdown_table(header, lines)


def draw(measured: pd.DataFrame, path: Path) -> None:
    """Writes `figure` as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure(measured)).print_png(str(path))


def figure(measured: pd.DataFrame) -> Figure:
    """A panel for each measure, with a point for each run: RMSE by kind of embedding, and how well objectives decode.

    Args:
        measured: As `markdown`.
    """
    from matplotlib.figure import Figure

    objectives = list(dict.fromkeys(measured["objective"]))[::-1]
    errors = [name for name in dict.fromkeys(measured["measure"]) if name not in DECODING]
    names = errors + [name for name in DECODING if (measured["measure"] == name).any()]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    picture = Figure(figsize=(1.5 + 3.2 * columns, 1 + rows * (1 + 0.2 * len(objectives))), layout="constrained")
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False).flat
    handles: dict[str, Line2D] = {}
    for name, panel in zip(names, panels):  # names first: zip must not take a panel more
        points = measured[measured["measure"] == name]
        for kind, style in (("mean", "C0o"), ("informative", "C1D"), ("", "C7s" if name in errors else "C3o")):
            of_kind = points[points["kind"] == kind]
            (handle,) = panel.plot(of_kind["value"], [objectives.index(o) for o in of_kind["objective"]], style, alpha=0.7)
            if name in errors and len(of_kind):
                handles.setdefault(kind or "fingerprint", handle)
        panel.set(title=DECODING.get(name, name), xlabel="share" if name in DECODING else "RMSE")
        panel.set_yticks(range(len(objectives)), objectives)
        panel.grid(axis="y", alpha=0.3)
    for panel in panels:  # what is left of the grid
        panel.set_axis_off()
    picture.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    return picture
