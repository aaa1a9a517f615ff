"""Tables and charts of a report page, as HTML and inline SVG. All text that goes into them is escaped here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cell", "Row", "bars", "compact", "distribution", "heat_map", "share", "table"]

Row: TypeAlias = "Sequence[str | int]"

_BARS = 60  # most bars of a histogram
_WIDTH, _LEFT, _RIGHT, _TOP, _FLOOR, _HEIGHT = 400, 44, 386, 18, 190, 226  # of a histogram, pixels


class Cell(NamedTuple):
    """A cell of a heat map: a number that gives the colour, and what its tooltip says."""

    number: int
    tip: str


def share(part: float, whole: float) -> str:
    """A percentage that is never rounded to nothing."""
    percent = 100 * part / whole if whole else 0.0
    return "<\u00a00.01\u00a0%" if 0 < percent < 0.01 else f"{percent:.2f}\u00a0%"  # spaces that no line breaks at


def compact(count: int) -> str:
    """A count in at most five characters: 950, 1.2k, 34k, 5.6M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.0f}{unit}" if count >= 10 * size else f"{count / size:.1f}{unit}"
    return str(count)


def table(heads: Sequence[str], rows: Sequence[Row], *, last: Row = (), sortable: bool = False) -> str:
    """A table; integers get separators and stand to the right. `last` is a row that sorting leaves at the end."""
    return _table(heads, [_cells(row) for row in rows], _cells(last), "sortable" if sortable else "")


def bars(
    heads: Sequence[str],
    rows: Sequence[tuple[str, int]],
    whole: int,
    *,
    last: tuple[str, int] | None = None,
    sortable: bool = False,
) -> str:
    """A table of counts with a bar for each, in proportion to the largest, and its share of `whole`.

    Args:
        heads: What the labels, the counts and the shares are.
        rows: Labels and counts.
        whole: 100 %.
        last: As `table`; it has no bar.
        sortable: As `table`.
    """
    longest = max((count for _, count in rows), default=0) or 1

    def cells(row: tuple[str, int], bar: str) -> str:
        label, count = row
        part = f'<td class="n" data-value="{count}">{share(count, whole)}</td>'
        return f'{_cells((label,))}<td class="bar">{bar}</td>{_cells((count,))}{part}'

    body = [cells(row, f'<span style="width:{100 * row[1] / longest:.2f}%"></span>') for row in rows]
    kind = "bars sortable" if sortable else "bars"
    return _table((heads[0], "", *heads[1:]), body, cells(last, "") if last else "", kind)


def _cells(row: Row) -> str:
    return "".join(
        f'<td class="n" data-value="{value}">{value:,}</td>' if isinstance(value, int) else f"<td>{escape(value)}</td>"
        for value in row
    )


def _table(heads: Sequence[str], rows: Sequence[str], foot: str, kind: str) -> str:
    """A table of rows whose cells are HTML already."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    end = f"<tfoot><tr>{foot}</tr></tfoot>\n" if foot else ""
    return _framed(f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n{end}", kind)


def _framed(rows: str, kind: str) -> str:
    return f'<div class="scroll"><table class="{kind}">\n{rows}</table></div>\n'


def heat_map(columns: Mapping[str, str], rows: Mapping[str, str], cells: Mapping[str, Cell], corner: str) -> str:
    """A table whose cells are coloured by the logarithm of their counts.

    Args:
        columns: The meaning of each letter of the horizontal axis.
        rows: The meaning of each letter of the vertical axis.
        cells: By the letters of column and row together; at least one. What is not there stays empty.
        corner: What the axes are.
    """
    logs = [math.log1p(cell.number) for cell in cells.values()]
    lowest, highest = min(logs), max(logs)

    def cell_of(key: str) -> str:
        if key not in cells:
            return "<td></td>"
        number, tip = cells[key]
        depth = (math.log1p(number) - lowest) / (highest - lowest) if highest > lowest else 1.0
        return f'<td style="--depth:{depth:.3f}" title="{escape(tip)}">{compact(number)}</td>'

    def head(letter: str, meaning: str, scope: str) -> str:
        return f'<th scope="{scope}"><b>{escape(letter)}</b> <span>{escape(meaning)}</span></th>'

    top = "".join(head(*column, "col") for column in columns.items())
    body = "".join(f"<tr>{head(*row, 'row')}{''.join(cell_of(c + row[0]) for c in columns)}</tr>\n" for row in rows.items())
    return _framed(f'<thead><tr><th scope="col">{escape(corner)}</th>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n', "heat")


def distribution(values: NDArray, counts: NDArray, name: str, unit: str, digits: int, least_step: float = 0.0) -> str:
    """A histogram with its median and its 5 % and 95 % quantiles.

    Args:
        values: [N], ascending, at least one.
        counts: [N], how often each occurs.
        name: What is measured.
        unit: Its unit, or "".
        digits: Decimals of the quantiles.
        least_step: The narrowest that a bar may be.
    """
    least, low, median, high, most = (_quantile(values, counts, q) for q in (0.0, 0.05, 0.5, 0.95, 1.0))
    first, last = (_quantile(values, counts, q) for q in (0.001, 0.999))  # a far molecule must not squeeze the others
    step = max(_round_step((last - first) / _BARS), least_step)
    edges = np.arange(math.floor(first / step), math.floor(last / step) + 2) * step
    heights, _ = np.histogram(values, edges, weights=counts)
    beyond = int(counts[(values < edges[0]) | (values > edges[-1])].sum())
    of_unit = f" {unit}" if unit else ""
    caption = (
        f"median {median:,.{digits}f}{of_unit}; 5 % are at or below {low:,.{digits}f}, 95 % at or below {high:,.{digits}f} "
        f"(dashed lines); all lie from {least:,.{digits}f} to {most:,.{digits}f}"
    )
    if beyond:
        caption += f", {beyond:,} of them beyond the axis"
    drawn = _histogram(edges, heights.astype(int).tolist(), (low, median, high), f"{name} / {unit}" if unit else name, of_unit)
    title = f"<figcaption><b>{escape(name)}</b>: {escape(caption)}.</figcaption>"
    return f'<figure class="chart">\n{drawn}\n{title}\n</figure>\n'


def _quantile(values: NDArray, counts: NDArray, q: float) -> float:
    """The smallest value that at least a share q of all reaches no further than."""
    upto = np.cumsum(counts)
    return float(values[np.searchsorted(upto, q * upto[-1])])


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... times a power of ten that is at least `least`."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _histogram(edges: NDArray, heights: list[int], marks: Sequence[float], label: str, unit: str) -> str:
    low, high = float(edges[0]), float(edges[-1])
    step_y = max(_round_step(max(heights) / 4), 1.0)
    top = max(math.ceil(max(heights) / step_y), 1) * step_y

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    def y(value: float) -> float:
        return _FLOOR - (_FLOOR - _TOP) * value / top

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram: {escape(label)}">']
    for tick in np.arange(0, top + step_y / 2, step_y):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{compact(int(tick))}</text>')
    for left, right, count in zip(edges[:-1], edges[1:], heights):
        parts.append(
            f'<rect x="{x(left):.1f}" y="{y(count):.1f}" width="{max(x(right) - x(left) - 0.6, 0.6):.1f}" '
            f'height="{_FLOOR - y(count):.1f}"><title>{left:g} to below {right:g}{escape(unit)}: {count:,}</title></rect>'
        )
    step_x = _round_step((high - low) / 7)
    for tick in np.arange(math.ceil(low / step_x), math.floor(high / step_x) + 1) * step_x:
        parts.append(f'<text x="{x(tick):.1f}" y="{_FLOOR + 15}" text-anchor="middle">{tick:g}</text>')
    parts += [f'<path class="mark" d="M{x(mark):.1f} {_TOP}V{_FLOOR}"/>' for mark in marks if low <= mark <= high]
    parts.append(f'<path class="axis" d="M{_LEFT} {_FLOOR}H{_RIGHT}"/>')
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<text x="4" y="{_TOP - 7}">molecules</text>')
    return "\n".join([*parts, "</svg>"])
