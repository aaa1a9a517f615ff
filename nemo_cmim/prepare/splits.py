"""Which split a molecule is in: each split is a range of the 64-bit hash of the canonical SMILES.

Test molecules have the lowest hashes and validation molecules the highest, so changing the size of one of these splits moves no
molecule between the other one and training. If the sizes are fractions, the split of a molecule depends on that molecule alone. If
a size is a number of molecules, it is exact, and the split of a molecule depends on the other molecules too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DataError
from .settings import SplitSizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SplitBounds", "place_of", "split_bounds"]


class SplitBounds(NamedTuple):
    """The splits as ranges of the hash: test < `test_stop` <= train < `valid_start` <= valid.

    Attributes:
        test_stop: Hash, at most 2**64.
        valid_start: Hash, at most 2**64.
    """

    test_stop: int
    valid_start: int

    def slices(self, hashes: NDArray[np.uint64]) -> dict[str, slice]:
        """Where the molecules of each split are among ascending `hashes`."""
        test, valid = (place_of(hashes, bound) for bound in self)
        return {"train": slice(test, valid), "valid": slice(valid, len(hashes)), "test": slice(0, test)}


def place_of(hashes: NDArray[np.uint64], bound: int) -> int:
    """Index of the first of ascending `hashes` that is at least `bound` (at most 2**64); their number if there is none."""
    return len(hashes) if bound >= 1 << 64 else int(np.searchsorted(hashes, np.uint64(bound)))


def split_bounds(sizes: SplitSizes, molecules: int = 0, hash_of: Callable[[int], int] | None = None) -> SplitBounds:
    """The hashes at which the splits begin and end.

    Args:
        sizes: Sizes of the splits.
        molecules: Number of distinct molecules; required if `sizes.are_exact`.
        hash_of: Returns the hash of the n-th of them in ascending order; required if `sizes.are_exact`.

    Raises:
        DataError: If there are too few molecules.
    """
    valid, test = sizes.valid, sizes.test
    if not sizes.are_exact:
        return SplitBounds(_hash_at(test), _hash_at(1 - valid))
    assert hash_of is not None
    requested = sum(int(size) for size in (valid, test) if size >= 1)
    if requested >= molecules:
        raise DataError(
            f"{requested:,} molecules are requested for validation and test, but only {molecules:,} are left after filtering. "
            "Request fewer."
        )
    test_stop = hash_of(int(test)) if test >= 1 else _hash_at(test)
    valid_start = hash_of(molecules - int(valid)) if valid >= 1 else _hash_at(1 - valid)
    if test_stop > valid_start:
        raise DataError(f"The validation split ({valid}) and the test split ({test}) overlap. Lower one of them.")
    return SplitBounds(test_stop, valid_start)


def _hash_at(fraction: float) -> int:
    """The hash below which this fraction of all hashes lies, to 53 bits."""
    return math.ceil(fraction * 2**53) << 11
