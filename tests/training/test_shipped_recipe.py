"""The shipped models were trained with the recipe in conf/."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.inference import load
from nemo_cmim.training.run import compose, model_settings
from tests.shipped_names import DEFAULT, MIM, WITHOUT_PROPERTIES

NO_PROPERTIES = ["model.objective.properties.values_given_h=0", "model.objective.properties.bits_given_h=0"]


@pytest.mark.parametrize(
    ("name", "overrides", "steps"),
    [
        (DEFAULT, [], 13000),
        (WITHOUT_PROPERTIES, NO_PROPERTIES, 3300),
        (MIM, ["objective=mim", *NO_PROPERTIES], 3300),
    ],
)
def test_shipped_models_have_the_settings_of_the_recipe(name: str, overrides: list[str], steps: int) -> None:
    cfg = compose(["run=default_model", *overrides, "model.train_ds.folder=data"])
    recipe, shipped = model_settings(cfg), load(name).config
    for part in ("objective", "augmentation", "optim"):
        assert getattr(shipped, part) == getattr(recipe, part), part
    heads = shipped.network.heads  # their sizes come from the data
    assert dataclasses.replace(shipped.network, heads=recipe.network.heads) == recipe.network
    assert bool(heads.sources) == (name == DEFAULT)
    assert shipped.restore_from_path == ("cmim_small_v2" if name == DEFAULT else None)
    card = load(name).card or ""
    assert f"of a run of {steps:,} |" in card
    assert f"| batch | {cfg.model.train_ds.batch_size} molecules |" in card
    assert f"| seed of the order of molecules | {cfg.seed} |" in card
