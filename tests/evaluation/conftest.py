from __future__ import annotations

from tests.evaluation.made_up import data_folder, minimol_environment, models, pretraining

__all__ = ["data_folder", "minimol_environment", "models", "pretraining"]
