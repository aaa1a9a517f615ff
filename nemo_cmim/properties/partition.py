"""How the rows of a property model are split, also within the training rows of a split."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..arguments import check_choice
from ..errors import ConfigError, DataError, InvalidShapeError
from .splits import Split, random_folds, scaffold_folds, time_folds
from .targets import Targets, is_missing
from .times import read_times

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Partition"]

SPLITS = ("random", "scaffold", "time")


class Partition(NamedTuple):
    """N rows and how to split them.

    Attributes:
        split: "random", "scaffold" or "time".
        smiles: N canonical SMILES.
        strata: N codes of classes, which are spread evenly over random folds; None: not used.
        times: N times, as ranks; None unless `split="time"`.
        seed: Seed of the folds.
    """

    split: str
    smiles: Sequence[str]
    strata: NDArray[np.float64] | None
    times: NDArray[np.int64] | None
    seed: int

    @classmethod
    def of(
        cls, split: str, smiles: Sequence[str], targets: Targets, groups: Any, rows: NDArray[np.int64], count: int, seed: int | None
    ) -> Partition:
        """Checks the arguments of `PropertyModel.fit`.

        Args:
            split: See above.
            smiles: Canonical SMILES of the rows that are used.
            targets: Their targets.
            groups: Times of all rows of the caller's table.
            rows: Indices of the rows that are used.
            count: Number of all rows.
            seed: Seed; None: a random one.

        Raises:
            ConfigError: If the split is unknown, or `groups` is missing or not needed.
            InvalidShapeError: If `groups` has another length.
            DataError: If the time of a row that is used is missing or cannot be read.
        """
        check_choice("split", split, SPLITS)
        if (groups is None) == (split == "time"):
            raise ConfigError(
                f"split={split!r}: " + ("pass the times as groups." if groups is None else "groups is used by split='time' only.")
            )
        times = None if groups is None else _ranks(groups, rows, count)
        strata = targets.values_NT[:, 0] if targets.classes and len(targets.names) == 1 else None
        return cls(split, smiles, strata, times, int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed)

    def part(self, rows: NDArray[np.int64]) -> Partition:
        """The same for some rows."""
        strata = None if self.strata is None else self.strata[rows]
        times = None if self.times is None else self.times[rows]
        return Partition(self.split, [self.smiles[row] for row in rows], strata, times, self.seed)

    def splits(self, folds: int) -> list[Split]:
        """The splits; see the functions of `splits` for errors."""
        if self.split == "time":
            assert self.times is not None, "checked"
            return time_folds(self.smiles, self.times, folds)
        if self.split == "scaffold":
            return scaffold_folds(self.smiles, folds, self.seed)
        return random_folds(self.smiles, folds, self.seed, self.strata)

    def inner_splits(self, folds: int) -> list[Split]:
        """Splits for a choice within these rows: fewer than `folds` if the rows do not suffice, and at last two random folds.

        Raises:
            DataError: If there is only one molecule.
        """
        for count in range(folds, 0 if self.split == "time" else 1, -1):
            with suppress(DataError):
                return self.splits(count)
        try:
            return random_folds(self.smiles, 2, self.seed, self.strata)
        except DataError:
            raise DataError(
                f'head="auto" compares heads within the training rows of each fold, but {len(self.smiles)} training rows have only one '
                "molecule. Name a head, or use fewer folds or more data."
            ) from None


def _ranks(groups: Any, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Ranks of the times of rows."""
    if isinstance(groups, np.ndarray) and groups.ndim == 1:
        groups = pd.Series(groups)  # its list has dates, where that of NumPy has nanoseconds
    cells = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(cells) != count:
        raise InvalidShapeError(f"groups has {len(cells)} values for {count} molecules. Pass one for each.")
    used = [cells[row] for row in rows]
    for row, cell in zip(rows, used):
        if is_missing(cell):
            raise DataError(f"The time at index {row} is missing. Fill it in, or leave the row out.")
    return np.unique(read_times(used, lambda number: f"The time at index {rows[number]}"), return_inverse=True)[1].ravel()
