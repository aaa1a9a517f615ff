"""From latents to sequences of tokens, and measures of what was generated."""

from .decode import Decoded, decode
from .density import DENSITY, MAX_COMPONENTS, LatentDensity
from .filters import Filter, Seen
from .measures import novelty, uniqueness, validity
from .settings import MAX_BEAM, DecodingSettings
from .stepper import BEFORE_TOKEN

__all__ = [
    "BEFORE_TOKEN",
    "DENSITY",
    "MAX_BEAM",
    "MAX_COMPONENTS",
    "Decoded",
    "DecodingSettings",
    "Filter",
    "LatentDensity",
    "Seen",
    "decode",
    "novelty",
    "uniqueness",
    "validity",
]
