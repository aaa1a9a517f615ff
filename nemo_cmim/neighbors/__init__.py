"""Nearest molecules of an embedded library."""

from .index import BuiltIndex, build_index
from .search import find_neighbors, neighbors_file

__all__ = ["BuiltIndex", "build_index", "find_neighbors", "neighbors_file"]
