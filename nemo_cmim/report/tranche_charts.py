"""The counts of a report page by the letters of ZINC tranche codes, and the meanings of these letters."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..zinc.tranches import BINS, EDGES, MEANINGS
from .charts import HeatCell, depths

__all__ = ["TrancheCharts", "tranche_charts"]


class TrancheCharts(NamedTuple):
    """Molecules kept, by the letters of the tranche codes.

    Attributes:
        tranches: Number of tranches.
        weights: Meaning of each letter of molecular weight, Da.
        logps: Meaning of each letter of logP.
        cells: Cells of the heat map, by the letters of weight and logP together.
        by_letter: For reactivity and for purchasability: its name, and letter with meaning and count.
        kept: Number of molecules kept.
    """

    tranches: int
    weights: dict[str, str]
    logps: dict[str, str]
    cells: dict[str, HeatCell]
    by_letter: list[tuple[str, list[tuple[str, int]]]]
    kept: int


def _bins(edges: Sequence[float]) -> dict[str, str]:
    """The bin between edges that each letter of an axis stands for."""
    between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))
    return dict(zip(BINS, (f"≤ {edges[0]:g}", *between, f"> {edges[-1]:g}")))


def tranche_charts(tranches: Mapping[str, Mapping[str, Any]]) -> TrancheCharts:
    """Counts molecules by weight and logP, by reactivity and by purchasability.

    Args:
        tranches: See `StoreManifest.tranches`; at least one.
    """
    weights, logps = _bins(EDGES["mw"]), _bins(EDGES["logp"])
    read, kept = _by_letters(tranches, "read"), _by_letters(tranches, "kept")
    depth = depths(kept)
    cells = {
        pair: HeatCell(
            kept[pair],
            depth[pair],
            f"{pair}: {weights[pair[0]]} Da, logP {logps[pair[1]]}: "
            f"{kept[pair]:,} kept of {read[pair]:,} lines, {read[pair] - kept[pair]:,} rejected",
        )
        for pair in sorted(read)
    }
    by_letter = [
        (name, [(f"{letter} {MEANINGS[name][letter]}", count) for letter, count in sorted(counts.items())])
        for name, counts in (
            ("reactivity", _by_letters(tranches, "kept", 2, 3)),
            ("purchasability", _by_letters(tranches, "kept", 3, 4)),
        )
    ]
    return TrancheCharts(len(tranches), weights, logps, cells, by_letter, sum(kept.values()))


def _by_letters(tranches: Mapping[str, Mapping[str, Any]], count: str, start: int = 0, stop: int = 2) -> dict[str, int]:
    """Sums of one count by the letters [start, stop) of the codes."""
    sums: dict[str, int] = defaultdict(int)
    for code, counts in tranches.items():
        sums[code[start:stop]] += counts[count]
    return sums
