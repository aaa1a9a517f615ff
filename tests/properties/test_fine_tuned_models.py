"""Property models whose network is fine-tuned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim import PropertyModel, load_property_model
from nemo_cmim.cli import main
from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.model_archive import write_members
from nemo_cmim.properties import FineTuner, Recipe
from nemo_cmim.properties import file as property_file
from tests.inference.conftest import random_model
from tests.properties.property_data import LABELS, SMILES, VALUES
from tests.properties.test_property_file import members_of
from tests.shipped_names import WITHOUT_PROPERTIES

QUICK = Recipe(scope="lora:2", epochs=2, hidden=4, batch_size=16)
SETTINGS = {"fine_tune": QUICK, "members": 2, "folds": 2}


@pytest.fixture(scope="module")
def model() -> CMIMModel:
    return CMIMModel(random_model(), "cpu")


@pytest.fixture(scope="module")
def fitted(model: CMIMModel) -> PropertyModel:
    return PropertyModel(model=model, **SETTINGS).fit(SMILES, pd.Series(VALUES, name="logS"))


def test_folds_and_the_last_fit_train_the_network(model: CMIMModel, fitted: PropertyModel) -> None:
    assert isinstance(fitted.predictor_, FineTuner) and len(fitted.predictor_.members_) == 2
    assert fitted.chosen_ == {"head": "fine-tuned network", "settings": {"scope": "lora:2", "members": 2}}
    table = fitted.cross_validation_
    assert sorted(table["row"]) == list(range(len(SMILES))) and fitted.choice_.empty
    train, test = table["row"][table["fold"] == 1].to_numpy(), table["row"][table["fold"] == 0].to_numpy()
    alone = FineTuner(model=model, recipe=QUICK, members=2).fit([SMILES[row] for row in np.sort(train)], VALUES[np.sort(train)])
    of_fold = table[table["fold"] == 0]["prediction"].to_numpy()
    np.testing.assert_allclose(np.asarray(alone.predict([SMILES[row] for row in test]))[:, 0], of_fold, rtol=1e-5, atol=1e-5)
    assert fitted.predict_table(["CCO"])["logS_lower"][0] < fitted.predict(["CCO"])[0]


def test_a_file_keeps_the_trained_weights(tmp_path: Path, model: CMIMModel, fitted: PropertyModel) -> None:
    fitted.save(tmp_path / "a.model")
    loaded = load_property_model(tmp_path / "a.model", model)
    pd.testing.assert_frame_equal(loaded.predict_table(SMILES[:9]), fitted.predict_table(SMILES[:9]))
    assert loaded.fine_tune == QUICK and loaded.chosen_ == fitted.chosen_
    with pytest.raises(CheckpointError, match="fitted on a different embedding"):
        load_property_model(tmp_path / "a.model", WITHOUT_PROPERTIES)


def test_a_file_without_its_weights_is_refused(tmp_path: Path, model: CMIMModel, fitted: PropertyModel) -> None:
    fitted.save(tmp_path / "a.model")
    members = members_of(tmp_path / "a.model")
    del members["network.safetensors"]
    write_members(tmp_path / "b.model", members, property_file._LAYOUT)
    with pytest.raises(CheckpointError, match=r"has no network\.safetensors\. It is incomplete"):
        load_property_model(tmp_path / "b.model", model)


def test_classes(tmp_path: Path, model: CMIMModel) -> None:
    recipe = Recipe(scope="last:1", epochs=1, hidden=0, class_weight="balanced")
    settings = {**SETTINGS, "fine_tune": recipe, "members": 1}
    fitted = PropertyModel("classification", model=model, **settings).fit(SMILES, LABELS)
    np.testing.assert_allclose(fitted.predict_proba(SMILES).sum(1), 1)
    fitted.save(tmp_path / "a.model")
    loaded = load_property_model(tmp_path / "a.model", model)
    np.testing.assert_array_equal(loaded.predict_proba(SMILES), fitted.predict_proba(SMILES))


def test_a_finished_fit_is_read_from_its_folder(
    tmp_path: Path, model: CMIMModel, fitted: PropertyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"model": model, "checkpoint": tmp_path / "fit", **SETTINGS}
    PropertyModel(**settings).fit(SMILES, VALUES)
    assert len(list((tmp_path / "fit").glob("rows-*/seed-*/member.safetensors"))) == 3 * 2
    monkeypatch.setattr("nemo_cmim.properties.fine_tuning.tuner.train_member", None)  # nothing is left to train
    again = PropertyModel(**settings).fit(SMILES, VALUES)
    np.testing.assert_array_equal(again.predict(SMILES), fitted.predict(SMILES))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"features": "morgan64"}, "needs features='informative' or features='mean', found 'morgan64'"),
        ({"head": "svm"}, "has a head of its own, found head='svm'. Leave head out"),
        ({"features": "mean"}, "has kind='informative', but features='mean'"),
        ({"fine_tune": None, "checkpoint": "x"}, "checkpoint needs fine_tune"),
        ({"fine_tune": "some"}, 'scope must be "all", "last:N" or "lora:R"'),
        ({"fine_tune": Recipe(class_weight="balanced")}, "class_weight='balanced' needs task='classification'"),
        ({"members": 0}, "members must be at least 1, found 0"),
    ],
)
def test_settings_that_do_not_fit_together(model: CMIMModel, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PropertyModel(model=model, **{**SETTINGS, **settings}).fit(SMILES, VALUES)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"smiles": SMILES[:20], "logS": VALUES[:20]}).to_csv(tmp_path / "in.csv", index=False)
    command = ["fit", str(tmp_path / "in.csv"), "--target", "logS", "-o", str(tmp_path / "out.model"), "--folds", "2"]
    assert main([*command, "--recipe", "epochs=2"]) == 2 and "--recipe has no effect without --fine-tune" in capsys.readouterr().err
    command += ["--fine-tune", "lora:1", "--members", "1"]
    assert (
        main([*command, "--recipe", "depth=2"]) == 2 and "--recipe depth=2: write NAME=VALUE with one of" in capsys.readouterr().err
    )
    assert (
        main([*command, "--features", "rdkit"]) == 2
        and "--fine-tune needs --features informative or --features mean" in capsys.readouterr().err
    )
    assert main([*command, "--recipe", "epochs=1", "--recipe", "augment=0", "--recipe", "encoder_rate=3e-4"]) == 0
    assert "head: fine-tuned network, scope=lora:1, members=1" in capsys.readouterr().out
    recipe = load_property_model(tmp_path / "out.model").fine_tune
    assert (recipe.epochs, recipe.augment, recipe.encoder_rate) == (1, 0, 3e-4)
