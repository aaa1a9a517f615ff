"""The figure of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from .decoding import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["draw", "figure"]


def draw(measured: pd.DataFrame, path: Path) -> None:
    """Writes `figure` as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure(measured)).print_png(str(path))


def figure(measured: pd.DataFrame) -> Figure:
    """A panel for each measure and a point for each run: RMSE by kind of embedding, and the measures of decoding.

    Args:
        measured: Rows as `entries.measure_entries` returns them.
    """
    from matplotlib.figure import Figure

    objectives = list(dict.fromkeys(measured["objective"]))[::-1]
    errors = [name for name in dict.fromkeys(measured["measure"]) if name not in MEASURES]
    names = errors + [name for name in MEASURES if (measured["measure"] == name).any()]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    picture = Figure(figsize=(1.5 + 3.2 * columns, 1 + rows * (1 + 0.2 * len(objectives))), layout="constrained")
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False).flat
    handles: dict[str, Line2D] = {}
    for name, panel in zip(names, panels):  # names first, so that zip leaves the next panel in the iterator
        points = measured[measured["measure"] == name]
        for kind, style in (("mean", "C0o"), ("informative", "C1D"), ("", "C7s" if name in errors else "C3o")):
            of_kind = points[points["kind"] == kind]
            (handle,) = panel.plot(of_kind["value"], [objectives.index(o) for o in of_kind["objective"]], style, alpha=0.7)
            if name in errors and len(of_kind):
                handles.setdefault(kind or "fingerprint", handle)
        panel.set(title=MEASURES.get(name, name), xlabel="fraction" if name in MEASURES else "RMSE")
        panel.set_yticks(range(len(objectives)), objectives)
        panel.grid(axis="y", alpha=0.3)
    for panel in panels:  # the unused rest of the grid
        panel.set_axis_off()
    picture.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
    return picture
