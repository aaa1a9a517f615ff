"""Search in the latent space for molecules with better scores."""

from .objectives import OBJECTIVES, Objective
from .result import PICTURES, Candidate, SearchResult, check_suffix
from .search import ALGORITHMS, SearchSettings, Seed, search

__all__ = [
    "ALGORITHMS",
    "OBJECTIVES",
    "PICTURES",
    "Candidate",
    "Objective",
    "SearchResult",
    "SearchSettings",
    "Seed",
    "check_suffix",
    "search",
]
