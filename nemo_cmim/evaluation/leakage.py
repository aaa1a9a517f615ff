"""Test molecules that are also in the pretraining data, and the predictions without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..downstream import RegressionData
from ..files import atomic_write
from ..report.overlap import Overlap, find_overlap
from ..store.manifest import StoreManifest
from .blocks import block_path
from .digest import code_digest, digest_of

__all__ = ["find_seen", "unseen"]

_FLAGS = ("same", "flat", "same_train", "flat_train")


def find_seen(sets: Sequence[RegressionData], pretraining: Path, folder: Path, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Looks up all molecules in prepared data, in its training split and in any of its splits.

    Args:
        sets: The data sets.
        pretraining: A folder written by `prepare`.
        folder: Folder of the kept result; created if it does not exist.
        say: Called with a line of text before the search.

    Returns:
        `data, row, smiles, same, flat, same_train, flat_train`, one line for each row of each data set. `same`: the molecule is in any
        split. `flat`: any split has a molecule that is the same without stereo. `_train`: in the training split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    smiles = [text for one in sets for text in one.smiles]
    names = [(one.name, len(one)) for one in sets]
    digest = digest_of(code_digest(__name__), StoreManifest.load(pretraining).files, names, smiles)
    path = block_path(folder, "seen", digest, ".csv")
    if not path.exists():
        say(f"looking up {len(smiles):,} molecules in {pretraining}")
        found = find_overlap(pretraining, smiles)
        tables = [pd.DataFrame({"data": one.name, "row": range(len(one)), "smiles": one.smiles}) for one in sets]
        nowhere = np.zeros(len(smiles), bool)  # for data without a training split
        in_train = [splits.get("train", nowhere) for splits in (found.same, found.without_stereo)]
        flags = dict(zip(_FLAGS, [Overlap.anywhere(found.same), Overlap.anywhere(found.without_stereo), *in_train]))
        with atomic_write(path) as staging:
            pd.concat(tables, ignore_index=True).assign(**flags).to_csv(staging, index=False)
    return pd.read_csv(path)


def unseen(predictions: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """The predictions of test rows whose molecules are in no split of the pretraining data, not even with different stereo.

    Args:
        predictions: Rows as `measure.measure` returns them.
        seen: The result of `find_seen`.
    """
    keep = np.ones(len(predictions), bool)
    for name, rows in seen.groupby("data", sort=False):
        of_set = (predictions["data"] == name).to_numpy()
        keep[of_set] = ~rows["flat"].to_numpy()[predictions.loc[of_set, "row"].to_numpy()]
    return predictions[keep]
