"""Results as text, tables and a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..errors import ConfigError
from ..markdown import markdown_table
from ..outputs import check_folder, write_folder
from .numbers import Notation
from .protocol import Results

__all__ = ["check_report_folder", "describe", "make_folder", "markdown", "mean_and_sd", "parity_plot", "write_report"]

_FILES = ("report.md", "runs.csv", "predictions.csv", "dropped.csv", "parity.png")


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
        f"Predicting the mean of the training targets gives {Notation.of([results.baseline_rmse]).text(results.baseline_rmse)}."
    )


def markdown(results: Results) -> str:
    """The RMSE as a Markdown table: a row for each set of features, a column for each head."""
    heads = list(dict.fromkeys(results.runs["head"]))
    rmse = results.runs.groupby(["features", "head"], sort=False)["rmse"]
    notation = Notation.of(rmse.mean())
    values = dict(iter(rmse))
    lines = [
        [str(features), *(mean_and_sd(values.get((features, head), pd.Series(dtype=float)), notation=notation) for head in heads)]
        for features in dict.fromkeys(results.runs["features"])
    ]
    return markdown_table(["features", *heads], lines)


def mean_and_sd(values: pd.Series, style: str | None = None, notation: Notation | None = None) -> str:
    """Mean ± (sample) standard deviation as text. Of one value only the mean; empty if there are no values.

    Args:
        values: The values.
        style: Format of both numbers, such as "{:.1%}". None: both have the same exponent and decimals, see `Notation`.
        notation: The notation of the table, which is used if it has enough decimals for the mean; None: that of the mean.
    """
    if values.empty:
        return ""
    mean = values.mean()
    spread = None if len(values) == 1 else statistics.stdev(values.astype(float))  # unlike NumPy's, it does not overflow
    if style is not None:
        return style.format(mean) if spread is None else f"{style.format(mean)} ± {style.format(spread)}"
    if notation is None or not notation.shows(mean):
        notation = Notation.of([mean])
    return notation.text(mean) if spread is None else notation.with_spread(mean, spread)


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
        panel.set_title(f"{feature}, {head}: RMSE {Notation.of([rmse]).text(rmse)}", fontsize=9)
        panel.set_aspect("equal")
    figure.supxlabel(f"measured{unit}")
    figure.supylabel(f"predicted{unit}")
    FigureCanvasAgg(figure).print_png(str(path))


def make_folder(folder: str | Path) -> Path:
    """Creates the folder of an evaluation if it does not exist. Call it before the evaluation, so that a wrong path is an early error.

    Raises:
        ConfigError: If the folder cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The output folder {folder} cannot be created: {error.strerror}. Choose a different folder.") from error
    return Path(folder)


def check_report_folder(folder: str | Path, *, overwrite: bool = False, others: Sequence[str | Path] = ()) -> None:
    """Checks that `write_report` can write to a folder. Call it before a long evaluation.

    Args:
        folder: See `write_report`.
        overwrite: See `write_report`.
        others: Files that are read, which the report must not replace.

    Raises:
        DataError: See `write_report`.
    """
    check_folder(folder, _FILES, overwrite=overwrite, others=others)


def write_report(results: Results, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Writes `report.md`, `runs.csv`, `predictions.csv` and `parity.png`, and `dropped.csv` if rows were left out.

    A `manifest.json` lists these files.

    Args:
        results: The results.
        folder: The folder to write. It is created if it does not exist.
        overwrite: Replace the files of an earlier report in the folder. Other files in the folder are never changed.

    Returns:
        Paths of the files.

    Raises:
        DataError: If the folder is not empty and `overwrite` is False, if it contains a file of such a name that is not of an earlier
            report, or if it cannot be written.
    """
    folder = Path(folder)
    tables = {"runs.csv": results.runs, "predictions.csv": results.predictions}
    if results.data.dropped:
        tables["dropped.csv"] = pd.DataFrame(results.data.dropped)
    with write_folder(folder, _FILES, overwrite=overwrite) as staging:
        for name, table in tables.items():
            table.to_csv(staging / name, index=False)
        text = f"# {results.data.name}\n\n{describe(results)}\n\n{markdown(results)}\n"
        (staging / "report.md").write_text(text, encoding="utf-8")
        parity_plot(results, staging / "parity.png")
    return [folder / name for name in ("report.md", *tables, "parity.png")]
