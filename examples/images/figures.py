"""Figures like the paper's 3, 4, 5b, 6 and 8-15, from the files of cells. Files are named by the number of the paper's figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .cell import ABLATIONS, MAIN
from .evaluation import CLASSIFIERS
from .scores import LABELS, comparable, likelihoods_of, of_ablated_sets
from .statistics import slopes
from .tables import conditions, scope, standard_scores

__all__ = ["draw_all"]

COLOURS = {
    "cMIM": "tab:orange",
    "MIM": "tab:blue",
    "InfoNCE": "tab:purple",
    "VAE": "tab:green",
    "AE": "tab:brown",
    "cMIM-Σ": "tab:gray",
    "InfoNCE-X": "gold",
    "cAE": "tab:red",
    "cVAE": "tab:olive",
}  # the paper's, where it names one (Fig. 3, 6)
_WIDTH = 120  # characters of a line above a narrow figure
_FIGURE_6 = ("cmim", "cmim_sum", "infonce", "infonce_x")
_TITLES = dict(zip(CLASSIFIERS, ("KNN5 cosine", "KNN5 Euclidean", "MLP classifier")))


def draw_all(cells: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws all figures for which there are cells, as PNG; returns their paths.

    Figures 6, 9 and those with the suffix `_all` show the image sets that have the ablations.
    """
    note = conditions(cells)
    main, _ = comparable(cells, MAIN)
    ablated, _ = comparable(of_ablated_sets(cells), (*MAIN, *ABLATIONS))
    drawn: dict[str, Figure] = {}
    if main:
        both, of_main = standard_scores(main), scope(main)
        drawn["figure_3"] = _bars(standard_scores(main, "mean"), ("z", "rank"), of_main)
        drawn["figure_4"] = _slope_figure(slopes(both, by=("evaluation",)), f"z-scores averaged over image sets. {of_main}")
        drawn["figure_8"] = _slope_figure(slopes(both), f"z-scores of each image set and evaluation. {of_main}")
        likelihood = likelihoods_of(main)
        likelihood = likelihood[likelihood["model"].isin([LABELS["mim"], LABELS["cmim"]])]
        if likelihood["model"].nunique() == 2:
            drawn["figure_5b"] = _reconstruction(likelihood, of_main)
    if ablated:
        of_ablated = scope(ablated)
        regular = standard_scores(ablated, "mean")  # z-scores and ranks are among all models, also those not shown
        pairs = regular[regular["model"].isin([LABELS[name] for name in _FIGURE_6])]
        drawn["figure_6"] = _bars(pairs, ("z", "rank"), of_ablated)
        text = f"z-scores averaged over image sets, mean embeddings. {of_ablated}"
        drawn["figure_6_slopes"] = _slope_figure(slopes(pairs, by=("evaluation",)), text)
        drawn["figure_9"] = _slope_figure(
            slopes(standard_scores(ablated)), f"z-scores of each image set and evaluation. {of_ablated}"
        )
    for suffix, some in [pair for pair in (("", main), ("_all", ablated)) if pair[1]]:
        for number, kind in ((10, "mean"), (12, "informative"), (14, None)):
            scores = standard_scores(some, kind)
            for offset, value in enumerate(("z", "rank") if len(scores) else ()):
                drawn[f"figure_{number + offset}{suffix}"] = _bars(scores, (value,), scope(some), CLASSIFIERS)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        figure.supxlabel(note.replace(". ", ".\n"), fontsize=6)
        paths.append(folder / f"{name}.png")
        FigureCanvasAgg(figure).print_png(str(paths[-1]))
    return paths


def _bars(scores: pd.DataFrame, values: Sequence[str], of: str, classifiers: Sequence[str] = ()) -> Figure:
    """A panel of each value, or of each classifier and their average: a bar of each model and batch size, and a light one of each model."""
    panels: list[tuple[str, str, pd.DataFrame]] = [(value, "average of classifiers", scores) for value in values]
    if classifiers:
        name_of = scores["evaluation"].str.split(" ").str[0]
        panels = [(values[0], _TITLES[name], scores[name_of == name]) for name in classifiers] + panels
    columns = 2
    figure = Figure(figsize=(12, 3.6 * -(-len(panels) // columns)), layout="constrained")
    kinds = scores["evaluation"].str.split(" ").str[1].unique()
    more = " Models without a decoder have only mean embeddings, whose ranks are among more runs." if len(kinds) > 1 else ""
    figure.suptitle(
        f"{of} Embeddings: {' and '.join(kinds)}. Error bars: standard error over image sets and evaluations.{more}", fontsize=7
    )
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).flat
    for axis, (value, title, some) in zip(axes, panels):
        _bar_panel(axis, some, value)
        axis.set(title=title, ylabel="average z-score" if value == "z" else "average rank (1 is best)")
    return figure


def _bar_panel(axis: Axes, scores: pd.DataFrame, value: str) -> None:
    models = list(dict.fromkeys(scores["model"]))
    sizes = sorted(scores["batch_size"].unique())
    width = 0.8 / len(sizes)
    for place, model in enumerate(models):
        some = scores[scores["model"] == model]
        axis.bar(place, some[value].mean(), 0.9, color=COLOURS[model], alpha=0.3, edgecolor="black", zorder=1)
        for number, size in enumerate(sizes):
            found = some[some["batch_size"] == size][value]
            error = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
            at = place - 0.4 + (number + 0.5) * width
            axis.bar(at, found.mean(), 0.9 * width, color=COLOURS[model], yerr=error, error_kw={"linewidth": 0.8}, zorder=2)
            axis.text(at, 0, str(size), fontsize=5, ha="center", va="bottom", zorder=3)
    axis.set_xticks(range(len(models)), models, rotation=20 * (len(models) > 5))
    axis.axhline(0, color="black", linewidth=0.5)


def _slope_figure(found: pd.DataFrame, title: str) -> Figure:
    """The slopes of each model as points, with their mean."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    figure.suptitle(fill(title, _WIDTH), fontsize=7)
    axis = figure.subplots()
    models = list(dict.fromkeys(found["model"]))
    for place, model in enumerate(models):
        values = 100 * found[found["model"] == model]["slope"].to_numpy()
        spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(1)
        axis.plot(place + spread, np.sort(values), "o", color=COLOURS[model], markersize=4, alpha=0.7)
        axis.plot([place - 0.3, place + 0.3], [values.mean()] * 2, color="black", linewidth=1.5)
    axis.axhline(0, color="black", linewidth=0.5, linestyle=":")
    axis.set_xticks(range(len(models)), models)
    axis.set_ylabel("slope, z-score per 100 images of a batch", fontsize=8)
    return figure


def _reconstruction(likelihood: pd.DataFrame, of: str) -> Figure:
    """log p(x|z) of MIM and cMIM for each image set and batch size; a point is a run."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    sets, sizes = list(dict.fromkeys(likelihood["data"])), sorted(likelihood["batch_size"].unique())
    figure.suptitle(fill(f"{of} From left to right in each set: B = {', '.join(map(str, sizes))}.", _WIDTH), fontsize=7)
    axis = figure.subplots()
    offsets = dict(zip(sizes, np.linspace(-0.3, 0.3, len(sizes)) if len(sizes) > 1 else np.zeros(1)))
    for model, marker in ((LABELS["mim"], "o"), (LABELS["cmim"], "x")):
        some = likelihood[likelihood["model"] == model]
        places = [sets.index(name) + offsets[size] for name, size in zip(some["data"], some["batch_size"])]
        axis.plot(places, some["mean"], marker, color=COLOURS[model], label=model)
    axis.set_xticks(range(len(sets)), sets, rotation=20)
    axis.set_ylabel("log p(x|z) of test images, nats per image", fontsize=8)
    axis.legend()
    return figure
