"""Which molecules of the data sets of table1.py are in the pretraining data, and the errors without them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nemo_cmim.downstream import RegressionData, markdown_table
from nemo_cmim.files import atomic_write
from nemo_cmim.prepare.cluster import versions
from nemo_cmim.report.overlap import Overlap, find_overlap
from nemo_cmim.store.manifest import StoreManifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["find_seen", "seen_table", "unseen"]

_FLAGS = ("same", "flat", "same_train", "flat_train")


def find_seen(sets: Sequence[RegressionData], pretraining: Path, folder: Path, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Looks all molecules up in prepared data, in its training split and in any of its splits.

    Args:
        sets: The data sets.
        pretraining: A folder that `prepare` wrote.
        folder: Where the answer is kept; another content of `sets` or `pretraining` is looked up anew.
        say: Gets a line before the search.

    Returns:
        `data, row, smiles, same, flat, same_train, flat_train`, a line for each row of each set: `same` if the molecule is in any split,
        `flat` if one is that is the same without stereo; `_train`: in the training split.
    """
    content = repr((_FLAGS, versions()["rdkit"], StoreManifest.load(pretraining).files, [one.smiles for one in sets])).encode()
    kept = folder / f"seen-{hashlib.sha256(content).hexdigest()[:12]}.csv"
    if not kept.exists():
        say(f"looking {sum(map(len, sets)):,} molecules up in {pretraining}")
        found = find_overlap(pretraining, [smiles for one in sets for smiles in one.smiles])
        tables = [pd.DataFrame({"data": one.name, "row": range(len(one)), "smiles": one.smiles}) for one in sets]
        nowhere = np.zeros(sum(map(len, sets)), bool)  # for data without a training split
        in_train = [splits.get("train", nowhere) for splits in (found.same, found.flat)]
        flags = dict(zip(_FLAGS, [Overlap.anywhere(found.same), Overlap.anywhere(found.flat), *in_train]))
        with atomic_write(kept) as staging:
            pd.concat(tables, ignore_index=True).assign(**flags).to_csv(staging, index=False)
    return pd.read_csv(kept)


def unseen(predictions: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """The predictions of those test rows whose molecules are in no split of the pretraining data, not even with other stereo."""
    flags: Mapping[str, NDArray[np.bool_]] = {name: rows["flat"].to_numpy() for name, rows in seen.groupby("data", sort=False)}
    keep = np.ones(len(predictions), bool)
    for name, is_seen in flags.items():
        of_set = (predictions["data"] == name).to_numpy()
        keep[of_set] = ~is_seen[predictions.loc[of_set, "row"].to_numpy()]
    return predictions[keep]


def seen_table(seen: pd.DataFrame) -> str:
    """Markdown: how many rows of each set are in the training split of the pretraining data, and in any split."""
    cells = []
    for name, rows in seen.groupby("data", sort=False):
        found = [f"{rows[f'{kind}_train'].sum():,} / {rows[kind].sum():,}" for kind in ("same", "flat")]
        cells.append([str(name), *found, f"{len(rows) - rows['flat'].sum():,}"])
    return markdown_table(
        ["data", "rows in the train split / in any split", "without regard to stereo", "rows left (in no split)"], cells
    )
