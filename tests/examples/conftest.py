"""The scripts import modules of their own folder, as Python allows a script to do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from tests.evaluation.made_up import data_folder, minimol_environment, models, pretraining

__all__ = ["data_folder", "minimol_environment", "models", "pretraining"]
