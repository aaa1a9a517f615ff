"""The shipped models were trained with the recipe in conf/."""

from __future__ import annotations

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.inference import load
from nemo_cmim.training.run import compose, model_settings


@pytest.mark.parametrize("objective", ["cmim", "mim"])
def test_shipped_models_have_the_settings_of_the_recipe(objective: str) -> None:
    cfg = compose(["run=shipped_cmim", f"objective={objective}", "model.train_ds.folder=data"])
    recipe, shipped = model_settings(cfg), load(f"{objective}_small").config
    for part in ("network", "objective", "augmentation", "optim"):
        assert getattr(shipped, part) == getattr(recipe, part), part
    assert shipped.objective.name == objective
    card = load(f"{objective}_small").card or ""
    assert f"of a run of {cfg.trainer.max_steps:,} |" in card
    assert f"| batch | {cfg.model.train_ds.batch_size} molecules |" in card
    assert f"| seed of the order of molecules | {cfg.seed} |" in card
