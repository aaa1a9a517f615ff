"""Names of the shipped models, for tests that need one of them."""

from __future__ import annotations

__all__ = ["DEFAULT", "MIM", "NAMES", "WITHOUT_PROPERTIES"]

DEFAULT, WITHOUT_PROPERTIES, MIM = NAMES = ["cmim_small_v3", "cmim_eq9_small_v3", "mim_small_v3"]
"""The default model, and its controls: a cMIM trained without observed properties, and a MIM."""
