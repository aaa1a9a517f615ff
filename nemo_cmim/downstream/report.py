"""Results as text, tables and a figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..errors import ConfigError
from ..markdown import markdown_table
from .protocol import Results

__all__ = ["describe", "make_folder", "markdown", "mean_and_sd", "parity_plot", "write_report"]


def describe(results: Results) -> str:
    """Data, protocol, metric and the error of predicting the mean, in a few sentences."""
    data, seeds = results.data, results.runs["seed"].nunique()
    unit = data.unit or "the target's unit"
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed, so no standard deviation"
    dropped = f" {len(data.dropped)} invalid rows of the file were left out." if data.dropped else ""
    return (
        f"{data.name}: {len(data)} rows, {len(set(data.canonical))} distinct molecules.{dropped}\n"
        f"Protocol: {results.protocol}.\n"
        f"Pooled out-of-fold RMSE in {unit}, one value per seed; {spread}; lower is better. "
        f"Predicting the mean of the training targets gives {results.baseline_rmse:.3f}."
    )


def markdown(results: Results) -> str:
    """The RMSE as a Markdown table: a row for each set of features, a column for each head."""
    heads = list(dict.fromkeys(results.runs["head"]))
    lines = [
        [str(features), *(mean_and_sd(rows.loc[rows["head"] == head, "rmse"]) for head in heads)]
        for features, rows in results.runs.groupby("features", sort=False)
    ]
    return markdown_table(["features", *heads], lines)


def mean_and_sd(values: pd.Series, style: str = "{:.3f}") -> str:
    """Mean ± (sample) standard deviation as text. Of one value only the mean; empty if there are no values."""
    if values.empty:
        return ""
    mean = style.format(values.mean())
    return mean if len(values) == 1 else f"{mean} ± {style.format(values.std())}"


def parity_plot(results: Results, path: str | Path) -> None:
    """Plots predicted against measured values of the first seed, one panel for each set of features and head, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs, shown = results.runs, results.predictions[results.predictions["seed"] == results.runs["seed"].iloc[0]]
    features, heads = list(dict.fromkeys(runs["features"])), list(dict.fromkeys(runs["head"]))
    unit = f" / {results.data.unit}" if results.data.unit else ""
    low, high = shown[["target", "prediction"]].min().min(), shown[["target", "prediction"]].max().max()

    figure = Figure(figsize=(2.6 * len(features) + 0.6, 2.6 * len(heads) + 0.6), layout="constrained")
    panels = figure.subplots(len(heads), len(features), sharex=True, sharey=True, squeeze=False)
    for (feature, head), rows in shown.groupby(["features", "head"], sort=False):
        panel = panels[heads.index(head)][features.index(feature)]
        rmse = runs[(runs["features"] == feature) & (runs["head"] == head)]["rmse"].iloc[0]
        panel.plot([low, high], [low, high], color="0.6", linewidth=1)
        panel.scatter(rows["target"], rows["prediction"], s=6, alpha=0.5, linewidths=0)
        panel.set_title(f"{feature}, {head}: RMSE {rmse:.2f}", fontsize=9)
        panel.set_aspect("equal")
    figure.supxlabel(f"measured{unit}")
    figure.supylabel(f"predicted{unit}")
    FigureCanvasAgg(figure).print_png(str(path))


def make_folder(folder: str | Path) -> Path:
    """Creates the folder of a report if it does not exist. Call it before a long evaluation, so that a wrong path is an early error.

    Raises:
        ConfigError: If the folder cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The output folder {folder} cannot be created: {error.strerror}. Choose a different folder.") from error
    return Path(folder)


def write_report(results: Results, folder: str | Path) -> list[Path]:
    """Writes `report.md`, `runs.csv`, `predictions.csv` and `parity.png`, and `dropped.csv` if rows were left out.

    Returns:
        Paths of the files.
    """
    folder = make_folder(folder)
    tables = {"runs.csv": results.runs, "predictions.csv": results.predictions}
    if results.data.dropped:
        tables["dropped.csv"] = pd.DataFrame(results.data.dropped)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    (folder / "report.md").write_text(f"# {results.data.name}\n\n{describe(results)}\n\n{markdown(results)}\n", encoding="utf-8")
    parity_plot(results, folder / "parity.png")
    return [folder / name for name in ("report.md", *tables, "parity.png")]
