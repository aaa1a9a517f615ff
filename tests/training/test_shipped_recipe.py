"""The shipped models were trained with the recipe in conf/."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.inference import load
from nemo_cmim.training.run import compose, model_settings
from tests.shipped_names import DEFAULT, MIM, WITHOUT_PROPERTIES


@pytest.mark.parametrize(
    ("name", "run", "objective", "steps"),
    [
        (DEFAULT, "default_model", "cmim", 3562),  # the long run's recipe, ended early
        (WITHOUT_PROPERTIES, "shipped_cmim", "cmim", 8000),
        (MIM, "shipped_cmim", "mim", 8000),
    ],
)
def test_shipped_models_have_the_settings_of_the_recipe(name: str, run: str, objective: str, steps: int) -> None:
    cfg = compose([f"run={run}", f"objective={objective}", "model.train_ds.folder=data"])
    recipe, shipped = model_settings(cfg), load(name).config
    for part in ("objective", "augmentation", "optim"):
        assert getattr(shipped, part) == getattr(recipe, part), part
    heads = shipped.network.heads  # their sizes come from the data
    assert dataclasses.replace(shipped.network, heads=recipe.network.heads) == recipe.network
    assert bool(heads.sources) == (run == "default_model")
    assert shipped.objective.name == objective
    card = load(name).card or ""
    assert f"of a run of {steps:,} |" in card
    assert f"| batch | {cfg.model.train_ds.batch_size} molecules |" in card
    assert f"| seed of the order of molecules | {cfg.seed} |" in card
