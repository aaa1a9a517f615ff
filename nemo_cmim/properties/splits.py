"""Splits into training and test rows. All rows of a molecule are on the same side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from ..molecules import murcko_scaffold

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Split", "random_folds", "scaffold_folds", "scaffold_split", "time_folds"]


class Split(NamedTuple):
    """Row numbers of the two sides, in ascending order.

    Attributes:
        train: int64, rows to fit on.
        test: int64, rows to predict.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def random_folds(canonical: Sequence[str], folds: int = 5, seed: int = 0, strata: Any = None) -> list[Split]:
    """Random k-fold cross-validation, grouped by molecule. Each row is tested once.

    Args:
        canonical: Canonical SMILES of N rows. Rows with equal SMILES are in the same fold.
        folds: Number of splits, at least 2. The numbers of distinct molecules in the folds differ by at most one.
        seed: Seed of the random partition.
        strata: One label for each row, such as its class: the folds have nearly equal numbers of molecules with each label. The label
            of a molecule is that of its first row. None: none.

    Raises:
        ConfigError: If `folds` is less than 2.
        DataError: If there are fewer distinct molecules than folds.
    """
    if folds < 2:
        raise ConfigError(f"folds must be at least 2, found {folds}.")
    molecules, first_row, molecule_of_row = np.unique(np.asarray(canonical), return_index=True, return_inverse=True)
    if len(molecules) < folds:
        raise DataError(f"{len(molecules)} distinct molecules are too few for {folds} folds. Use fewer folds or more data.")
    order = np.random.default_rng(seed).permutation(len(molecules))
    if strata is not None:  # molecules sorted by label, and in random order within a label, are dealt out to the folds in turn
        labels = np.unique(np.asarray(strata), return_inverse=True)[1].ravel()[first_row]
        order = np.argsort(np.lexsort((order, labels)))
    fold_of_row = (order % folds)[molecule_of_row]
    return [_split(fold_of_row == fold) for fold in range(folds)]


def scaffold_folds(canonical: Sequence[str], folds: int = 5, seed: int = 0) -> list[Split]:
    """Cross-validation by Bemis-Murcko scaffold: all rows of a scaffold are in the same fold, and each row is tested once.

    Scaffolds go to the fold with the fewest rows, largest first; equally large ones in random order. Molecules without a ring share the
    empty scaffold, so a fold may be larger than the others.

    Args:
        canonical: Canonical SMILES of N rows.
        folds: Number of splits, at least 2.
        seed: Seed of the random order.

    Raises:
        ConfigError: If `folds` is less than 2.
        DataError: If there are fewer scaffolds than folds.
    """
    if folds < 2:
        raise ConfigError(f"folds must be at least 2, found {folds}.")
    of_molecule = {smiles: murcko_scaffold(smiles) for smiles in dict.fromkeys(canonical)}
    scaffolds, scaffold_of_row, rows_of = np.unique(
        [of_molecule[smiles] for smiles in canonical], return_inverse=True, return_counts=True
    )
    if len(scaffolds) < folds:
        raise DataError(
            f"{len(scaffolds)} scaffolds are too few for {folds} folds. Use fewer folds, the random split or more data."
        )
    shuffled = np.random.default_rng(seed).permutation(len(scaffolds))
    sizes, fold_of = np.zeros(folds, dtype=np.int64), np.zeros(len(scaffolds), dtype=np.int64)
    for scaffold in shuffled[np.argsort(-rows_of[shuffled], kind="stable")]:
        fold_of[scaffold] = np.argmin(sizes)
        sizes[fold_of[scaffold]] += rows_of[scaffold]
    return [_split(fold_of[scaffold_of_row] == fold) for fold in range(folds)]


def time_folds(canonical: Sequence[str], times: Any, folds: int = 5) -> list[Split]:
    """Splits by time: earlier molecules train, later ones are tested, in `folds` steps of nearly equal size.

    The time of a molecule is that of its last row, so that no training row is later than a test row. Molecules of one time are never on
    both sides. The first molecules are not tested.

    Args:
        canonical: Canonical SMILES of N rows.
        times: N values that can be sorted, such as years or dates.
        folds: Number of splits, at least 1.

    Raises:
        ConfigError: If `folds` is less than 1.
        DataError: If there are too few different times.
    """
    if folds < 1:
        raise ConfigError(f"folds must be at least 1, found {folds}.")
    _, molecule_of_row = np.unique(np.asarray(canonical), return_inverse=True)
    time_of_row = np.unique(np.asarray(times), return_inverse=True)[1].ravel()
    time_of = np.zeros(molecule_of_row.max() + 1, dtype=np.int64)
    np.maximum.at(time_of, molecule_of_row, time_of_row)
    ordered = np.sort(time_of)
    cuts = [int(ordered[round(len(ordered) * step / (folds + 1))]) for step in range(1, folds + 1)]
    if len(set(cuts)) < folds or cuts[0] == ordered[0]:
        raise DataError(
            f"The molecules have {len(set(time_of.tolist()))} different times, or most of them have the same: too few for {folds} folds by "
            "time. Use fewer folds or the random split."
        )
    of_row, ends = time_of[molecule_of_row], [*cuts[1:], ordered[-1] + 1]
    return [Split(np.flatnonzero(of_row < cut), np.flatnonzero((of_row >= cut) & (of_row < end))) for cut, end in zip(cuts, ends)]


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
