"""Numbers and geometry of the charts on a report page. The templates draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HeatCell", "Histogram", "compact", "depths", "histogram", "percent", "round_step", "thousands"]

_BARS = 60  # maximum number of bars of a histogram
_WIDTH, _LEFT, _RIGHT, _TOP, _FLOOR, _HEIGHT = 400, 44, 386, 18, 190, 226  # of a histogram, pixels


def percent(count: float, total: float) -> str:
    """A percentage that is never rounded to zero."""
    value = 100 * count / total if total else 0.0
    return "<\u00a00.01\u00a0%" if 0 < value < 0.01 else f"{value:.2f}\u00a0%"  # no-break spaces


def compact(count: int) -> str:
    """A count in at most five characters: 950, 1.2k, 34k, 5.6M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.0f}{unit}" if count >= 10 * size else f"{count / size:.1f}{unit}"
    return str(count)


def thousands(count: int) -> str:
    """A count with separators: 1,234,567."""
    return f"{count:,}"


class HeatCell(NamedTuple):
    """A cell of a heat map.

    Attributes:
        number: Number shown.
        depth: Strength of the colour, from 0 to 1.
        tip: Text of the tooltip.
    """

    number: int
    depth: float
    tip: str


def depths(counts: Mapping[str, int]) -> dict[str, float]:
    """Strengths of colour from 0 to 1, linear in log(1 + count); at least one count."""
    logs = {key: math.log1p(count) for key, count in counts.items()}
    lowest, highest = min(logs.values()), max(logs.values())
    return {key: (value - lowest) / (highest - lowest) if highest > lowest else 1.0 for key, value in logs.items()}


class HistogramBar(NamedTuple):
    """A bar of a histogram, in pixels.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: Width.
        height: Height.
        tip: Text of the tooltip.
    """

    x: float
    y: float
    width: float
    height: float
    tip: str


class Histogram(NamedTuple):
    """A histogram with its median and its 5 % and 95 % quantiles. Positions are in pixels.

    Attributes:
        name: The measured quantity.
        label: Name and unit, below the axis.
        caption: Quantiles and range.
        bars: The bars.
        x_ticks: Position and text of each tick of the horizontal axis.
        y_ticks: Position and text of each tick of the vertical axis.
        marks: Positions of the quantiles.
        box: Size and edges of the drawing: `width`, `height`, `left`, `right`, `top`, `floor`.
    """

    name: str
    label: str
    caption: str
    bars: list[HistogramBar]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[float]
    box: dict[str, int]


def histogram(values: NDArray, counts: NDArray, name: str, unit: str, digits: int, least_step: float = 0.0) -> Histogram:
    """Computes a histogram.

    Args:
        values: [N], ascending, at least one.
        counts: [N], number of occurrences of each value.
        name: The measured quantity.
        unit: Its unit, or "".
        digits: Number of decimals of the quantiles.
        least_step: Minimum width of a bar, in units of `values`.
    """
    least, low, median, high, most = (_quantile(values, counts, q) for q in (0.0, 0.05, 0.5, 0.95, 1.0))
    first, last = (_quantile(values, counts, q) for q in (0.001, 0.999))  # so that outliers do not compress the axis
    step = max(round_step((last - first) / _BARS), least_step)
    edges = np.arange(math.floor(first / step), math.floor(last / step) + 2) * step
    heights = np.histogram(values, edges, weights=counts)[0].astype(int).tolist()
    beyond = int(counts[(values < edges[0]) | (values > edges[-1])].sum())
    of_unit = f" {unit}" if unit else ""
    caption = (
        f"median {median:,.{digits}f}{of_unit}; 5 % are at or below {low:,.{digits}f}, 95 % at or below {high:,.{digits}f} "
        f"(dashed lines); all lie from {least:,.{digits}f} to {most:,.{digits}f}"
    )
    if beyond:
        caption += f", {beyond:,} of them beyond the axis"
    start, stop = float(edges[0]), float(edges[-1])
    step_x, step_y = round_step((stop - start) / 7), max(round_step(max(heights) / 4), 1.0)
    top = max(math.ceil(max(heights) / step_y), 1) * step_y

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - start) / (stop - start)

    def y(value: float) -> float:
        return _FLOOR - (_FLOOR - _TOP) * value / top

    bars = [
        HistogramBar(
            x(left),
            y(count),
            max(x(right) - x(left) - 0.6, 0.6),
            _FLOOR - y(count),
            f"{left:g} to below {right:g}{of_unit}: {count:,}",
        )
        for left, right, count in zip(edges[:-1], edges[1:], heights)
    ]
    return Histogram(
        name,
        f"{name} / {unit}" if unit else name,
        caption,
        bars,
        x_ticks=[(x(tick), f"{tick:g}") for tick in np.arange(math.ceil(start / step_x), math.floor(stop / step_x) + 1) * step_x],
        y_ticks=[(y(tick), compact(int(tick))) for tick in np.arange(0, top + step_y / 2, step_y)],
        marks=[x(mark) for mark in (low, median, high) if start <= mark <= stop],
        box={"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "floor": _FLOOR},
    )


def _quantile(values: NDArray, counts: NDArray, q: float) -> float:
    """The smallest value such that at least a fraction q of all values is not larger."""
    upto = np.cumsum(counts)
    return float(values[np.searchsorted(upto, q * upto[-1])])


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... times a power of ten that is at least `least`."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
