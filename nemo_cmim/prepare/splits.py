"""Which split a molecule is in: a range of the 64-bit hash of its canonical SMILES.

Test molecules are those of the low end of the hash and validation molecules those of the high end, so changing the share of one
moves no molecule between the other and training. A share as a fraction makes the split of a molecule a matter of the molecule
alone; a share as a number of molecules is exact, and depends on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PAPER_TEST", "PAPER_VALID", "Cuts", "Shares", "first_not_below"]

PAPER_VALID = 100_000 / 730_000_000  # Sec. D.2: of 730M molecules 100k for validation
PAPER_TEST = 7_000_000 / 730_000_000  # and 7M for test


class Cuts(NamedTuple):
    """The splits as ranges of the hash: test < `test_stop` <= train < `valid_start` <= valid.

    Attributes:
        test_stop: at most 2**64.
        valid_start: at most 2**64.
    """

    test_stop: int
    valid_start: int

    def ranges(self, hashes: NDArray[np.uint64]) -> dict[str, slice]:
        """Where the molecules of each split are among ascending `hashes`."""
        test, valid = (first_not_below(hashes, cut) for cut in self)
        return {"train": slice(test, valid), "valid": slice(valid, len(hashes)), "test": slice(0, test)}


def first_not_below(hashes: NDArray[np.uint64], cut: int) -> int:
    """Where a hash, or 2**64, would stand among ascending `hashes`."""
    return len(hashes) if cut >= 1 << 64 else int(np.searchsorted(hashes, np.uint64(cut)))


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How much the validation and the test split get; the rest is for training.

    Attributes:
        valid: below 1: the expected fraction; from 1 on: the exact number of molecules.
        test: as `valid`.
    """

    valid: float = PAPER_VALID
    test: float = PAPER_TEST

    def __post_init__(self) -> None:
        for name, share in (("validation", self.valid), ("test", self.test)):
            if not 0 <= share < math.inf or (share >= 1 and share != int(share)):
                raise ConfigError(f"The share of the {name} split is a fraction below 1 or a number of molecules, found {share}.")
        if sum(share for share in (self.valid, self.test) if share < 1) >= 1:
            raise ConfigError(
                f"The fractions of the validation and the test split leave nothing to train on: {self.valid}, {self.test}."
            )

    @property
    def has_counts(self) -> bool:
        """The cuts depend on the molecules."""
        return max(self.valid, self.test) >= 1

    def cuts(self, molecules: int = 0, hash_of: Callable[[int], int] | None = None) -> Cuts:
        """Where the hash is cut.

        Args:
            molecules: How many different ones there are; needed with `has_counts`.
            hash_of: The hash of the n-th of them in ascending order; needed with `has_counts`.

        Raises:
            DataError: There are not so many molecules.
        """
        if not self.has_counts:
            return Cuts(_hash_at(self.test), _hash_at(1 - self.valid))
        assert hash_of is not None
        wanted = sum(int(share) for share in (self.valid, self.test) if share >= 1)
        if wanted >= molecules:
            raise DataError(
                f"{wanted:,} molecules are wanted for validation and test, but only {molecules:,} are left after filtering."
            )
        test = hash_of(int(self.test)) if self.test >= 1 else _hash_at(self.test)
        valid = hash_of(molecules - int(self.valid)) if self.valid >= 1 else _hash_at(1 - self.valid)
        if test > valid:
            raise DataError(f"The shares of validation ({self.valid}) and test ({self.test}) overlap: lower one of them.")
        return Cuts(test, valid)


def _hash_at(fraction: float) -> int:
    """The hash that this fraction of all hashes lies below, to 53 bits."""
    return math.ceil(fraction * 2**53) << 11
