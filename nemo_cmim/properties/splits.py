"""Splits into training and test rows. All rows of a molecule are on the same side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from ..molecules import murcko_scaffold

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Split", "random_folds", "scaffold_split"]


class Split(NamedTuple):
    """Row numbers of the two sides, in ascending order.

    Attributes:
        train: int64, rows to fit on.
        test: int64, rows to predict.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def random_folds(canonical: Sequence[str], folds: int = 5, seed: int = 0) -> list[Split]:
    """Random k-fold cross-validation, grouped by molecule. Each row is tested once.

    Args:
        canonical: Canonical SMILES of N rows. Rows with equal SMILES are in the same fold.
        folds: Number of splits, at least 2. The numbers of distinct molecules in the folds differ by at most one.
        seed: Seed of the random partition.

    Raises:
        ConfigError: If `folds` is less than 2.
        DataError: If there are fewer distinct molecules than folds.
    """
    if folds < 2:
        raise ConfigError(f"folds must be at least 2, found {folds}.")
    molecules, molecule_of_row = np.unique(np.asarray(canonical), return_inverse=True)
    if len(molecules) < folds:
        raise DataError(f"{len(molecules)} distinct molecules are too few for {folds} folds. Use fewer folds or more data.")
    fold_of_row = (np.random.default_rng(seed).permutation(len(molecules)) % folds)[molecule_of_row]
    return [_split(fold_of_row == fold) for fold in range(folds)]


def scaffold_split(canonical: Sequence[str], test_fraction: float = 0.2, seed: int = 0) -> Split:
    """One split by Bemis-Murcko scaffold (ring systems and linkers, without stereo): no scaffold is on both sides.

    As in MoleculeNet, large scaffolds are in the training set: those with more rows than half the test set. The other scaffolds are
    added to the test set in random order as long as they fit, so the test set has at most, and nearly, `test_fraction` of the rows.
    Molecules without a ring share the empty scaffold. In FreeSolv the empty scaffold is the largest, so all test molecules have rings.

    Args:
        canonical: Canonical SMILES of N rows.
        test_fraction: Fraction of the rows to test on, between 0 and 1.
        seed: Seed of the random order of the small scaffolds.

    Raises:
        ConfigError: If `test_fraction` is not between 0 and 1.
        DataError: If no scaffold is small enough for the test set.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test_fraction must be between 0 and 1, found {test_fraction}.")
    scaffolds, scaffold_of_row, rows_of = np.unique(
        [murcko_scaffold(smiles) for smiles in canonical], return_inverse=True, return_counts=True
    )
    room = round(test_fraction * len(canonical))
    small = np.flatnonzero(rows_of <= room / 2)
    tested = np.zeros(len(scaffolds), dtype=bool)
    for scaffold in np.random.default_rng(seed).permutation(small):
        if rows_of[scaffold] <= room:
            tested[scaffold] = True
            room -= rows_of[scaffold]
    if not tested.any():
        raise DataError(
            f"{len(canonical)} rows have {len(scaffolds)} scaffolds, each larger than half a test set of {test_fraction:.0%}. "
            "Use the random split or more data."
        )
    return _split(tested[scaffold_of_row])


def _split(is_test: NDArray[np.bool_]) -> Split:
    return Split(np.flatnonzero(~is_test), np.flatnonzero(is_test))
