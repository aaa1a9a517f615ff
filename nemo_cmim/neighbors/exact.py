"""Exact search: the cosine similarity of queries to all vectors of a library, block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .library import EmbeddedLibrary

__all__ = ["Hits", "exact_hits", "nearest", "no_hits", "normalised"]


class Hits(NamedTuple):
    """The nearest rows of Q queries, the nearest first.

    Attributes:
        rows: int64 [Q, k], numbers of the rows; -1 if the library has fewer vectors.
        similarities: float32 [Q, k], cosines; -inf if the library has fewer vectors.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]


def exact_hits(library: EmbeddedLibrary, queries: NDArray[np.float32], k: int) -> Hits:
    """Finds the k nearest rows of queries, float32 [Q, D]. All vectors of the library are read once."""
    best = no_hits(len(queries), k)
    unit = normalised(queries)
    for block in library.blocks():
        similarities = unit @ normalised(block.vectors).T
        best = nearest(best, np.broadcast_to(block.rows, similarities.shape), similarities)
    return best


def no_hits(queries: int, k: int) -> Hits:
    """Hits before any vector has been compared."""
    return Hits(np.full((queries, k), -1), np.full((queries, k), -np.inf, np.float32))


def nearest(best: Hits, rows: NDArray[np.int64], similarities: NDArray[np.float32]) -> Hits:
    """The best hits so far and further rows: the nearest of them, as many as before.

    Equal similarities are in the order of the rows. If more rows are equally near than there is room for, which of them is kept is not
    defined.
    """
    k = best.rows.shape[1]
    rows, similarities = np.concatenate([best.rows, rows], 1), np.concatenate([best.similarities, similarities], 1)
    some = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    rows, similarities = np.take_along_axis(rows, some, 1), np.take_along_axis(similarities, some, 1)
    order = np.lexsort((rows, -similarities), axis=1)
    return Hits(np.take_along_axis(rows, order, 1), np.take_along_axis(similarities, order, 1))


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors with length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32, copy=False)
