"""Search in the latent space for molecules with better scores."""

from .objectives import OBJECTIVES, Objective
from .result import Candidate, SearchResult
from .search import ALGORITHMS, SearchSettings, Seed, search

__all__ = ["ALGORITHMS", "OBJECTIVES", "Candidate", "Objective", "SearchResult", "SearchSettings", "Seed", "search"]
