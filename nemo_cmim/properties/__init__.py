"""Property models: features of molecules, heads, splits, and what was learnt, in a file. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .feature_sets import FeatureSet
    from .fine_tuning import FineTuner, Recipe
    from .loading import load_property_model
    from .model import PropertyModel
    from .predictor import FeaturePredictor, Predictor

_HOME = {
    "FeaturePredictor": "predictor",
    "FeatureSet": "feature_sets",
    "FineTuner": "fine_tuning",
    "Predictor": "predictor",
    "PropertyModel": "model",
    "Recipe": "fine_tuning",
    "load_property_model": "loading",
}

__all__ = ["FeaturePredictor", "FeatureSet", "FineTuner", "Predictor", "PropertyModel", "Recipe", "load_property_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
