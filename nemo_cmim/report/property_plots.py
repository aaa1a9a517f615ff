"""Plots of out-of-fold predictions of a property model: parity, coverage of intervals, ROC, precision and recall, reliability.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from ..properties.intervals import held_out_coverage
from .plots import Layer, Plot, plot

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["class_plots", "value_plots"]

_MOST_DOTS = 3000
_MOST_CURVE_POINTS = 300
_MOST_CLASSES = 6  # colours
_BINS = 10
_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_AXIS = {"log10": ("log10({})", np.log10), "log1p": ("ln(1 + {})", np.log1p)}


def value_plots(table: pd.DataFrame, worst: pd.DataFrame, unit: str, transform: str | None) -> list[Plot]:
    """Parity, and observed against stated coverage.

    Args:
        table: Rows of `PropertyModel.cross_validation_` for one target.
        worst: Those that are marked.
        unit: Unit of the values, or "".
        transform: Name of the transform of the target.
    """
    return [_parity(table, worst, unit, transform), _coverage(table)]


def class_plots(table: pd.DataFrame, labels: NDArray[Any]) -> list[Plot]:
    """ROC, precision against recall, and reliability; of each class against all others, for two classes of the second one.

    Args:
        table: Rows of `PropertyModel.cross_validation_` for one target.
        labels: The C sorted labels.
    """
    shown, limited = _shown_classes(table, labels)
    layers: dict[str, list[Layer]] = {"roc": [], "pr": [], "reliability": []}
    for number, label in enumerate(shown):
        is_class_N, p_N = (table["measured"] == label).to_numpy(), table[f"p_{label}"].to_numpy(dtype=np.float64)
        style, text = f"s{number}", str(label)
        false, true, _ = roc_curve(is_class_N, p_N)
        layers["roc"].append(Layer(f"line {style}", *_thinned(false, true), f"{text}: area {auc(false, true):.3f}"))
        precision, recall, _ = precision_recall_curve(is_class_N, p_N)
        average = average_precision_score(is_class_N, p_N)
        layers["pr"].append(Layer(f"line {style}", *_thinned(recall, precision), f"{text}: average precision {average:.3f}"))
        observed, predicted = calibration_curve(is_class_N, p_N, n_bins=_BINS, strategy="quantile")
        layers["reliability"] += [
            Layer(f"line {style}", predicted, observed, text),
            Layer(f"dots big {style}", predicted, observed),
        ]
    joined = f"out-of-fold predictions of all folds together{limited}."
    return [
        plot(
            "ROC", f"{joined} The diagonal is chance.", ("false positive rate", "true positive rate"), [_diagonal(), *layers["roc"]]
        ),
        plot("Precision and recall", joined, ("recall", "precision"), layers["pr"]),
        plot(
            "Reliability",
            f"each dot is a tenth of the predictions, sorted by probability{limited}. On the diagonal, a probability of 0.7 is right in "
            "7 of 10 cases. Below it, the probabilities are too high.",
            ("predicted probability", "observed fraction"),
            [_diagonal(), *layers["reliability"]],
        ),
    ]


def _parity(table: pd.DataFrame, worst: pd.DataFrame, unit: str, transform: str | None) -> Plot:
    axis, forward = _AXIS.get(str(transform), ("{}", np.asarray))
    with np.errstate(divide="ignore"):
        measured_N, predicted_N, worst_x, worst_y = (
            forward(part[column].to_numpy(dtype=np.float64)) for part in (table, worst) for column in ("measured", "prediction")
        )
    margin = 0.3 * np.ptp(measured_N)  # so that a few extreme predictions do not compress the plot
    low, high = measured_N.min() - margin, measured_N.max() + margin
    beyond = int(((predicted_N < low) | (predicted_N > high)).sum())
    inside = predicted_N[(predicted_N >= low) & (predicted_N <= high)]
    limits = min(measured_N.min(), inside.min(initial=np.inf)), max(measured_N.max(), inside.max(initial=-np.inf))
    rows = np.arange(len(measured_N))
    notes = ["one dot for each out-of-fold prediction; on the diagonal it equals the measured value"]
    if len(rows) > _MOST_DOTS:
        rows = np.random.default_rng(0).choice(rows, _MOST_DOTS, replace=False)
        notes.append(f"{_MOST_DOTS:,} of the {len(measured_N):,} dots are drawn, chosen at random")
    if beyond:
        notes.append(f"{beyond:,} predictions are beyond the axis and drawn at its end")
    of_unit = f" / {unit}" if unit else ""
    layers = [
        _diagonal(limits),
        Layer("dots s0", measured_N[rows], predicted_N[rows]),
        Layer("dots big s1", worst_x, worst_y, "largest errors, drawn below"),
    ]
    labels = tuple(axis.format(f"{name}{of_unit}") for name in ("measured", "predicted"))
    return plot("Parity", "; ".join(notes) + ".", (labels[0], labels[1]), layers, limits)


def _coverage(table: pd.DataFrame) -> Plot:
    scores_N, folds_N = table["score"].to_numpy(), table["fold"].to_numpy()
    observed = np.array([held_out_coverage(scores_N, folds_N, level) for level in _LEVELS])
    levels, name = np.array(_LEVELS), "Coverage of intervals"
    if np.isnan(observed).any():
        return plot(name, "not measured, because the target was tested in one fold only.", ("stated", "observed"), [_diagonal()])
    caption = (
        "fraction of measured values inside the interval. The width of the intervals of each fold is known from the other folds alone. "
        "Below the diagonal, the intervals are too narrow."
    )
    return plot(
        name,
        caption,
        ("stated coverage", "observed coverage"),
        [_diagonal(), Layer("line s0", levels, observed), Layer("dots big s0", levels, observed)],
    )


def _diagonal(limits: tuple[float, float] = (0.0, 1.0)) -> Layer:
    return Layer("mark", np.array(limits), np.array(limits))


def _shown_classes(table: pd.DataFrame, labels: NDArray[Any]) -> tuple[Sequence[Any], str]:
    """The classes with a curve, and a note if not all have one."""
    counts = table["measured"].value_counts()
    known = [label for label in labels.tolist() if 0 < counts.get(label, 0) < len(table)]
    if len(labels) == 2:
        return [label for label in known if label == labels[1]], ""
    if len(known) <= _MOST_CLASSES:
        return known, ""
    most = set(counts.index[:_MOST_CLASSES])
    return [label for label in known if label in most], f", of the {_MOST_CLASSES} most frequent of {len(labels)} classes"


def _thinned(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `_MOST_CURVE_POINTS` points of a curve, with both ends."""
    rows = np.unique(np.linspace(0, len(x_N) - 1, _MOST_CURVE_POINTS).round().astype(np.int64))
    return x_N[rows], y_N[rows]
