"""Names of the shipped models, for tests that need one of them."""

from __future__ import annotations

__all__ = ["DEFAULT", "MIM", "NAMES", "WITHOUT_PROPERTIES"]

DEFAULT, WITHOUT_PROPERTIES, MIM = NAMES = ["cmim_small_v2", "cmim_small", "mim_small"]
"""The default model, and its controls: a cMIM trained without observed properties, and a MIM."""
