"""From latents to sequences of tokens, and measures of what was generated."""

from .decode import Decoded, decode
from .density import BANDWIDTH, DENSITY, KERNELS, MAX_COMPONENTS, MAX_KERNELS, LatentDensity
from .filters import Filter, Seen
from .measures import novelty, uniqueness, validity
from .settings import MAX_BEAM, DecodingSettings
from .stepper import BEFORE_TOKEN

__all__ = [
    "BANDWIDTH",
    "BEFORE_TOKEN",
    "DENSITY",
    "KERNELS",
    "MAX_BEAM",
    "MAX_COMPONENTS",
    "MAX_KERNELS",
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
