"""Text and figure of table1.py. `runs` are rows of `nemo_cmim.evaluation.measure.rmse_of_runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from table1_models import RANDOM

from nemo_cmim.downstream import RegressionData
from nemo_cmim.evaluation.measure import Protocol
from nemo_cmim.evaluation.tables import HEADS, differences_table, rmse_table
from nemo_cmim.inference import CMIMModel

__all__ = ["draw", "protocol_in_words", "sections_of"]

_FAR = 2.5
SPLITS = {
    "random": "Random split: {folds}-fold cross-validation",
    "scaffold": "Scaffold split: 20 % of the rows tested, no Bemis-Murcko scaffold on both sides",
}


def sections_of(runs: pd.DataFrame, tests: pd.DataFrame, protocol: Protocol) -> list[str]:
    """The Markdown sections of the splits."""
    sections = []
    for split in protocol.splits:
        of_split, tested = runs[runs["split"] == split], tests[(tests["split"] == split) & (tests["rows"] == "all")]
        sections += [f"## {SPLITS[split].format(folds=protocol.folds)}", rmse_table(of_split[of_split["rows"] == "all"])]
        if (of_split["rows"] == "unseen").any():
            sections += ["Without test rows that are in the pretraining data:", rmse_table(of_split[of_split["rows"] == "unseen"])]
        sections += ["Paired differences over seeds, all rows:", differences_table(tested)]
    return sections


def protocol_in_words(
    sets: Sequence[RegressionData], protocol: Protocol, models: Mapping[str, CMIMModel], notes: Sequence[str]
) -> str:
    """How the numbers were measured. `notes` are further sentences."""
    parts = []
    for one in sets:
        dropped = f", {len(one.dropped)} left out for all rows of the table" if one.dropped else ""
        unit = f"; {one.unit}" if one.unit else ""
        parts.append(f"{one.name} ({len(one)} rows{dropped}{unit})")
    named = [
        f"{label} ({model.config.objective.name}, {sum(p.numel() for p in model.network.parameters()) / 1e6:.2f} M parameters)"
        for label, model in models.items()
    ]
    text = (
        f"RMSE, lower is better, mean ± standard deviation over {len(protocol.seeds)} seeds of split and head (one training run of each "
        f"model): {', '.join(parts)}. SVM: scikit-learn's SVR with its defaults; MLP: 128 hidden units, {protocol.mlp_steps:,} steps; "
        f'features are standardised, except fingerprints. Models: {", ".join(named)}. "{RANDOM}": the same network, with weights drawn '
        "again for each seed. Differences: paired two-sided t-test over seeds, bold if p < 0.05 after Holm's correction over the columns."
    )
    return " ".join([text, *notes])


def draw(runs: pd.DataFrame, path: Path) -> None:
    """A panel for each data set and head, and a point for each run: filled for the random split, open for the scaffold split.

    A run with more than `_FAR` times the panel's median RMSE is a triangle at the right edge, since it would compress all others.
    """
    rows = list(dict.fromkeys(runs["features"]))[::-1]
    sets, heads = list(dict.fromkeys(runs["data"])), list(dict.fromkeys(runs["head"]))
    size = (2.5 + 3 * len(sets), 1 + len(heads) * (0.8 + 0.22 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(heads), len(sets), sharey=True, squeeze=False)
    for (data, head), of_panel in runs.groupby(["data", "head"], sort=False):
        panel = panels[heads.index(head)][sets.index(data)]
        right = _FAR * of_panel["rmse"].median()
        for split, points in of_panel.groupby("split", sort=False):
            color, fill, shift = ("C0", "full", 0.15) if split == "random" else ("C1", "none", -0.15)
            style = {"color": color, "fillstyle": fill, "markersize": 4, "alpha": 0.7}
            y = np.array([rows.index(name) + shift for name in points["features"]])
            is_far = points["rmse"].to_numpy() > right
            panel.plot(points["rmse"][~is_far], y[~is_far], "o", label=f"{split} split", **style)
            panel.plot(np.full(is_far.sum(), right), y[is_far], ">", **style)
        far = f" (triangles: more than {right:.2g})" if (of_panel["rmse"] > right).any() else ""
        panel.set(title=f"{data}, {HEADS[head]}", xlabel=f"RMSE{far}")
        panel.set_yticks(range(len(rows)), rows)
        panel.grid(axis="y", alpha=0.3)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    FigureCanvasAgg(figure).print_png(str(path))
