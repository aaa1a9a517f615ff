"""Plots of points and lines on a report page: geometry in pixels. The templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .charts import round_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Layer", "Plot", "plot"]

_BOX = {"width": 360, "height": 350, "left": 52, "right": 348, "top": 12, "floor": 304}


class Layer(NamedTuple):
    """Points or a line of a plot.

    Attributes:
        style: CSS classes: "dots", "line", "line marked" or "mark" (a dashed line), and "s0" to "s5" for the colour.
        x: Positions [N] on the horizontal axis.
        y: Positions [N] on the vertical axis. What is beyond an axis is drawn at its end.
        label: Text in the legend; "" for none.
    """

    style: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    label: str = ""


class Plot(NamedTuple):
    """A plot. Positions are in pixels.

    Attributes:
        name: Its title.
        caption: What it shows.
        x_label: Text below the horizontal axis.
        y_label: Text beside the vertical axis.
        x_ticks: Position and text of each tick of the horizontal axis.
        y_ticks: Position and text of each tick of the vertical axis.
        paths: CSS classes and SVG path of each layer.
        legend: Colour class and text of each layer with a label.
        box: Size and edges of the drawing, as in `Histogram`.
    """

    name: str
    caption: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    paths: list[tuple[str, str]]
    legend: list[tuple[str, str]]
    box: dict[str, int]


def plot(name: str, caption: str, labels: tuple[str, str], layers: Sequence[Layer], limits: tuple[float, float] = (0, 1)) -> Plot:
    """Computes a plot.

    Args:
        name: Its title.
        caption: What it shows.
        labels: Texts of the horizontal and the vertical axis.
        layers: Points and lines, without NaN; the later ones on top.
        limits: Ends of both axes.
    """
    low, high = limits
    step = round_step((high - low) / 5)
    ticks = [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    left, right, top, floor = (_BOX[edge] for edge in ("left", "right", "top", "floor"))

    def x(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return left + (right - left) * (np.clip(values, low, high) - low) / (high - low)

    def y(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return floor - (floor - top) * (np.clip(values, low, high) - low) / (high - low)

    texts = [f"{tick:.6g}" for tick in ticks]
    return Plot(
        name,
        caption,
        *labels,
        x_ticks=list(zip(x(np.array(ticks)).tolist(), texts)),
        y_ticks=list(zip(y(np.array(ticks)).tolist(), texts)),
        paths=[(layer.style, _path(x(layer.x), y(layer.y), "dots" in layer.style)) for layer in layers],
        legend=[(layer.style, layer.label) for layer in layers if layer.label],
        box=_BOX,
    )


def _path(x_N: NDArray[np.float64], y_N: NDArray[np.float64], is_dots: bool) -> str:
    """An SVG path: a line, or lines of no length whose round ends are dots."""
    points = [f"{x:.1f} {y:.1f}" for x, y in zip(x_N, y_N)]
    return "".join(f"M{point}h0" for point in points) if is_dots else f"M{'L'.join(points)}" if points else ""
