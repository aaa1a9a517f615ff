"""Observed properties: which ones, and how they are stored. They are computed from a molecule's structure; no measured label is used.

A property is stored as one byte: its place among 255 quantiles of the prepared molecules. The network predicts its normal score, the
quantile mapped to N(0, 1), so that all properties have the same scale and outliers have no weight. Bits of the Morgan fingerprint are
stored as bits. Shape letters: N molecules, P properties, F bits, Q quantiles.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PROPERTIES", "PropertyTable"]

PROPERTIES = "properties.json"
"""Name of the file of a table in checkpoints and model files."""

_QUANTILES = 255
_MISSING = 255  # the byte of a property that RDKit cannot compute


@dataclass(frozen=True)
class PropertyTable:
    """The observed properties of a prepared folder or of a model.

    Attributes:
        values: Names of P properties, of `rdkit.Chem.Descriptors`.
        bits: F, the number of bits of the Morgan fingerprint.
        quantiles: Q = 255 quantiles of each property among the prepared molecules, in its own unit, from the lowest to the highest.
    """

    values: tuple[str, ...]
    bits: int
    quantiles: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, names: tuple[str, ...], bits: int, sample_NP: NDArray[np.floating]) -> PropertyTable:
        """The table of a sample of molecules; NaN is ignored. A property that is missing for all of them has quantiles 0."""
        levels = np.linspace(0, 1, _QUANTILES)
        known = [column[np.isfinite(column)] for column in np.asarray(sample_NP, np.float64).T]
        return cls(names, bits, tuple(tuple(np.quantile(c if len(c) else [0.0], levels).tolist()) for c in known))

    @property
    def bytes_per_molecule(self) -> int:
        """Size of a molecule's properties in a store."""
        return len(self.values) + self.bits // 8

    def encode(self, values_NP: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The place of each value among the quantiles, uint8 [N, P]; 255 for NaN.

        It is the nearest quantile. A value that equals several quantiles gets the middle one.
        """
        places = np.empty(values_NP.shape, np.uint8)
        for column, quantiles in enumerate(self._quantiles_PQ):
            value = values_NP[:, column]
            left, right = (np.searchsorted(quantiles, value, side) for side in ("left", "right"))
            below, above = (quantiles[np.clip(left + step, 0, _QUANTILES - 1)] for step in (-1, 0))
            nearest = left - (value - below < above - value)
            place = np.where(left < right, (left + right - 1) // 2, nearest)
            places[:, column] = np.where(np.isfinite(value), np.clip(place, 0, _QUANTILES - 1), _MISSING)
        return places

    def scores(self, places_NP: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The normal scores of encoded values, float32 [N, P]; NaN where a value is missing."""
        return _SCORES[places_NP]

    def from_scores(self, scores_NP: NDArray[np.floating]) -> NDArray[np.float64]:
        """The values with these normal scores, float64 [N, P], interpolated between quantiles; each in the unit of its property."""
        places_NP = np.vectorize(NormalDist().cdf, otypes=[float])(scores_NP) * _QUANTILES - 0.5
        grid = np.arange(_QUANTILES)
        columns = [np.interp(place, grid, quantiles) for place, quantiles in zip(places_NP.T, self._quantiles_PQ)]
        return np.stack(columns, 1) if columns else np.empty((len(scores_NP), 0))

    @cached_property
    def _quantiles_PQ(self) -> NDArray[np.float64]:
        return np.array(self.quantiles, np.float64).reshape(len(self.values), _QUANTILES)

    def as_json(self) -> dict[str, Any]:
        """The table for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> PropertyTable:
        """The table of `as_json`.

        Raises:
            DataError: If the content is not a table.
        """
        try:
            rows = tuple(tuple(map(float, row)) for row in content["quantiles"])
            table = cls(tuple(map(str, content["values"])), int(content["bits"]), rows)
            if len(rows) != len(table.values) or any(len(row) != _QUANTILES for row in rows):
                raise ValueError(f"{len(table.values)} properties need {_QUANTILES} quantiles each")
            if table.bits < 0 or table.bits % 8:
                raise ValueError(f"the number of bits must be a multiple of 8, found {table.bits}")
            if not np.isfinite(table._quantiles_PQ).all() or (np.diff(table._quantiles_PQ, axis=1) < 0).any():
                raise ValueError("quantiles must be finite and ascending")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} does not contain a table of observed properties ({error}).") from error
        return table

    def dumps(self) -> str:
        """The text of the file `PROPERTIES`."""
        return json.dumps(self.as_json()) + "\n"

    @classmethod
    def loads(cls, text: str, where: str) -> PropertyTable:
        """Reads the text of `dumps`; see `from_json` for errors."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where} is not JSON ({error}).") from error
        return cls.from_json(content, where)


_SCORES = np.array([NormalDist().inv_cdf((place + 0.5) / _QUANTILES) for place in range(_QUANTILES)] + [np.nan], np.float32)
