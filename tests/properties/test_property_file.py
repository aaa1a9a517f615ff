"""Files of property models."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer

from nemo_cmim import PropertyModel, load_property_model
from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.inference.model_archive import write_members
from nemo_cmim.properties import file as property_file
from nemo_cmim.properties import predictor_file
from tests.properties.property_data import LABELS, SMILES, VALUES
from tests.shipped_names import DEFAULT, MIM, WITHOUT_PROPERTIES

QUERIES = ["CCO", "C1C", "CCCCCCCCCc1ccccc1Br"]
RUN: list[str] = []


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.name != "manifest.json"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("property") / "one.model"
    PropertyModel(features="morgan64", head="ridge", folds=3).fit(SMILES, VALUES).save(path, unit="mol/L", licence="CC0-1.0")
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "mean+rdkit", "model": WITHOUT_PROPERTIES, "target_transform": "quantile"},
        {"features": "morgan64", "head": Ridge(2.0), "target_transform": "log1p"},
    ],
)
def test_a_loaded_regressor_predicts_the_same(tmp_path: Path, settings: dict) -> None:
    y = pd.DataFrame({"one": VALUES + 1, "two": np.where(VALUES > 1, VALUES, np.nan)})
    model = PropertyModel(**({"head": "svm", "folds": 3, "on_invalid": "nan"} | settings)).fit(SMILES, y)
    model.save(tmp_path / "a.model")
    loaded = load_property_model(tmp_path / "a.model")
    pd.testing.assert_frame_equal(loaded.predict_table(QUERIES), model.predict_table(QUERIES))
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        np.testing.assert_array_equal(
            loaded.predict(QUERIES), np.asarray(model.predict_table(QUERIES)[["one", "two"]], dtype=float)
        )
    pd.testing.assert_frame_equal(loaded.metrics_, model.metrics_)
    assert loaded.card_ == model.card_ and loaded.target_names_ == ["one", "two"]
    loaded.save(tmp_path / "b.model")
    again = load_property_model(tmp_path / "b.model")
    pd.testing.assert_frame_equal(again.predict_table(QUERIES), model.predict_table(QUERIES))


@pytest.mark.parametrize("labels", [LABELS, VALUES > 2, np.digitize(VALUES, [1, 3])], ids=["text", "bool", "three classes"])
def test_a_loaded_classifier_predicts_the_same(tmp_path: Path, labels: np.ndarray) -> None:
    model = PropertyModel("classification", features="morgan64", head="svm", folds=3).fit(SMILES, labels)
    model.save(tmp_path / "a.model")
    loaded = load_property_model(tmp_path / "a.model")
    assert loaded.predict(SMILES).dtype == model.predict(SMILES).dtype
    assert loaded.classes_.tolist() == sorted(set(labels.tolist()))
    pd.testing.assert_frame_equal(loaded.predict_table(QUERIES), model.predict_table(QUERIES))


def test_the_card_has_what_the_model_was_made_from(saved: Path) -> None:
    card = json.loads(members_of(saved)["property.json"])["card"]
    assert (card["rows"], card["molecules"], card["unit"], card["licence"]) == (60, 60, "mol/L", "CC0-1.0")
    assert card["targets"]["target"]["mean"] == pytest.approx(VALUES.mean())
    assert set(card["versions"]) >= {"nemo_cmim", "rdkit", "scikit-learn"}
    assert str(saved.parent) not in members_of(saved)["property.json"].decode()


def test_another_embedding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    model = PropertyModel(features="mean", head="ridge", model=WITHOUT_PROPERTIES, folds=3).fit(SMILES, VALUES)
    model.save(path)
    with pytest.raises(CheckpointError, match=rf"fitted on a different embedding: the fingerprint of 'mean' was .* '{MIM}'"):
        load_property_model(path, model=MIM)
    model.model = model._state.features.model = MIM
    with pytest.raises(CheckpointError, match="This PropertyModel was fitted on a different embedding"):
        model.predict(["C"])
    members = members_of(path)
    members["property.json"] = members["property.json"].replace(f'"{WITHOUT_PROPERTIES}"'.encode(), b'"own.nemo"')
    write_members(path, members, property_file._LAYOUT)
    with pytest.raises(CheckpointError, match=r"embeddings of the model 'own.nemo', .* Pass its file as model=FILE"):
        load_property_model(path)
    np.testing.assert_array_equal(load_property_model(path, model=WITHOUT_PROPERTIES).n_features_in_, 1)


def test_damaged_files_are_errors(saved: Path, tmp_path: Path) -> None:
    data, path = saved.read_bytes(), tmp_path / "bad.model"
    for cut in (0, 10, 700, len(data) // 2, len(data) - 20_000):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=r"bad\.model"):
            load_property_model(path)
    place = data.index(b'"rows"')
    path.write_bytes(data[:place] + b'"Rows"' + data[place + 6 :])
    with pytest.raises(CheckpointError, match=r"checksum of property\.json does not match"):
        load_property_model(path)
    path.write_bytes(data.replace(b"nemo_cmim property model 1", b"nemo_cmim property model 2"))
    with pytest.raises(CheckpointError, match="a newer version wrote it"):
        load_property_model(path)
    with pytest.raises(CheckpointError, match="no property model at"):
        load_property_model(tmp_path / "none.model")
    with pytest.raises(CheckpointError, match="is not a property model of nemo_cmim"):
        load_property_model(Path(property_file.__file__).parents[1] / "shipped" / f"{DEFAULT}.nemo")


@pytest.mark.parametrize("name", ["settings", "targets", "columns", "chosen", "metrics", "card"])
def test_changed_settings_are_errors(saved: Path, tmp_path: Path, name: str) -> None:
    members = members_of(saved)
    content = json.loads(members["property.json"])
    content[name] = [1]
    members["property.json"] = json.dumps(content).encode()
    write_members(tmp_path / "bad.model", members, property_file._LAYOUT)
    if name in ("metrics", "card"):
        assert load_property_model(tmp_path / "bad.model").predict(["C"]).shape == (1,)
    else:
        with pytest.raises(CheckpointError, match=r"bad\.model"):
            load_property_model(tmp_path / "bad.model")


def test_an_unknown_setting_is_an_error(saved: Path, tmp_path: Path) -> None:
    members = members_of(saved)
    content = json.loads(members["property.json"])
    content["settings"]["new"] = 1
    members["property.json"] = json.dumps(content).encode()
    write_members(tmp_path / "new.model", members, property_file._LAYOUT)
    with pytest.raises(CheckpointError, match="a setting that this version of nemo_cmim does not know"):
        load_property_model(tmp_path / "new.model")


@pytest.mark.parametrize(("field", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 10**6), ("is_categorical", 1)])
def test_trees_that_point_out_of_their_arrays_are_not_read(tmp_path: Path, field: str, value: int) -> None:
    model = PropertyModel(features="morgan8", head="boosting", folds=2).fit(SMILES, VALUES)
    model.save(tmp_path / "good.model")
    assert load_property_model(tmp_path / "good.model").predict(["C"]) == model.predict(["C"])
    trees = model.predictor_.heads_[0].steps[-1][1]._predictors
    nodes = next(tree[0].nodes for tree in trees if len(tree[0].nodes) > 1)
    nodes[field][0] = value
    model.save(tmp_path / "bad.model")
    with pytest.raises(CheckpointError, match="contains a tree that is not valid"):
        load_property_model(tmp_path / "bad.model")


@pytest.mark.parametrize("version", ["1.2.0", None])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "sklearn.linear_model._ridge.Gone",
            "is missing or has changed (module 'sklearn.linear_model._ridge' has no attribute 'Gone')",
        ),
        ("sklearn.gone.Gone", "is missing or has changed (No module named 'sklearn.gone')"),
        (None, "or contains other types: "),
    ],
)
def test_heads_of_another_version_of_scikit_learn(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, name: str | None, reason: str
) -> None:
    members = members_of(saved)
    content = json.loads(members["property.json"])
    if version:
        content["card"]["versions"]["scikit-learn"] = version
    else:
        del content["card"]["versions"]
    members["property.json"] = json.dumps(content).encode()
    module, _, kind = (name or "sklearn.old_place.Ridge").rpartition(".")
    members["head.skops"] = with_class(members["head.skops"], "Ridge", module, kind)
    write_members(tmp_path / "old.model", members, property_file._LAYOUT)
    if name:
        monkeypatch.setattr(predictor_file, "TRUSTED", (*predictor_file.TRUSTED, name))  # as if it had been an estimator once
    with pytest.raises(CheckpointError) as raised:
        load_property_model(tmp_path / "old.model")
    message = str(raised.value)
    assert "old.model: head.skops" in message and reason in message
    hint = "It was written with scikit-learn 1.2.0, and this is " if version else "if the file was written with another version, "
    assert hint in message and message.endswith("or fit again.")


def with_class(head: bytes, name: str, module: str, kind: str) -> bytes:
    """A file of skops in which a class has another name."""

    def change(node: dict) -> dict:
        return node | {"__module__": module, "__class__": kind} if node.get("__class__") == name else node

    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(head)) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member == "schema.json":
                data = json.dumps(json.loads(data, object_hook=change)).encode()
            new.writestr(member, data)
    return changed.getvalue()


def run_something(x: np.ndarray) -> np.ndarray:
    RUN.append("ran")
    return x


def test_other_types_are_neither_read_nor_written(saved: Path, tmp_path: Path) -> None:
    members = members_of(saved)
    members["head.skops"] = skops.io.dumps({"heads": [FunctionTransformer(run_something)], "scales": [[0.0, 1.0]]})
    write_members(tmp_path / "bad.model", members, property_file._LAYOUT)
    with pytest.raises(CheckpointError, match=r"head\.skops is not opened, .*run_something"):
        load_property_model(tmp_path / "bad.model")
    assert not RUN

    class Own(DummyRegressor):
        """A type that is not in the list."""

    model = PropertyModel(features="morgan64", head=Own(), folds=3).fit(SMILES, VALUES)
    with pytest.raises(ConfigError, match=r"Own, which a file of a property model may not contain"):
        model.save(tmp_path / "own.model")
    assert not (tmp_path / "own.model").exists()
