from __future__ import annotations

from tests.evaluation.made_up import data_folder, models, pretraining

__all__ = ["data_folder", "models", "pretraining"]
