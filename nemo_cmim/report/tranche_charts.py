"""The part of a report page about ZINC's tranches: what the letters of their codes mean, and the counts by letter."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..zinc.tranches import BINS, EDGES, MEANINGS
from .charts import Cell, bars, heat_map

__all__ = ["tranche_charts"]


def _bins(edges: Sequence[float]) -> dict[str, str]:
    """What each letter of an axis means: the bins between its edges."""
    between = (f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))
    return dict(zip(BINS, (f"≤ {edges[0]:g}", *between, f"> {edges[-1]:g}")))


def tranche_charts(tranches: Mapping[str, Mapping[str, Any]]) -> str:
    """Molecules kept by weight and logP, by reactivity and by purchasability.

    Args:
        tranches: As `StoreManifest.tranches`.
    """
    weights, logps = _bins(EDGES["mw"]), _bins(EDGES["logp"])
    read, kept = _by_letters(tranches, "read"), _by_letters(tranches, "kept")
    cells = {
        pair: Cell(
            kept[pair],
            f"{pair}: {weights[pair[0]]} Da, logP {logps[pair[1]]}: "
            f"{kept[pair]:,} kept of {read[pair]:,} lines, {read[pair] - kept[pair]:,} rejected",
        )
        for pair in sorted(read)
    }
    whole = sum(kept.values())
    by_letter = [
        bars((name, "kept", "share"), [(f"{letter} {meanings[letter]}", n) for letter, n in sorted(counts.items())], whole)
        for name, meanings, counts in (
            ("reactivity", MEANINGS["reactivity"], _by_letters(tranches, "kept", 2, 3)),
            ("purchasability", MEANINGS["purchasability"], _by_letters(tranches, "kept", 3, 4)),
        )
    ]
    return (
        f"<p>Molecules kept of {len(tranches):,} tranches. The stronger the colour, the more (on a logarithmic scale); "
        "empty: not among the inputs. Across: molecular weight in Da; down: logP.</p>\n"
        + heat_map(weights, logps, cells, "logP \\ Da")
        + f'<div class="columns">\n{"".join(by_letter)}</div>\n'
    )


def _by_letters(tranches: Mapping[str, Mapping[str, Any]], count: str, start: int = 0, stop: int = 2) -> dict[str, int]:
    """Sums of one count by the letters [start, stop) of the codes."""
    sums: dict[str, int] = defaultdict(int)
    for code, counts in tranches.items():
        sums[code[start:stop]] += counts[count]
    return sums
