"""The scikit-learn transformer."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from rdkit import Chem
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from nemo_cmim import MoleculeEmbedder, standardise
from nemo_cmim.errors import CheckpointError, ConfigError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel, load, shipped
from nemo_cmim.inference.model_file import write_model_file
from tests.estimator_checks import CHECKS
from tests.inference.conftest import random_model
from tools.ship_model import write_checksums

SMILES = ["C" * n + tail for n in range(1, 9) for tail in ("", "O", "N", "c1ccccc1")]
TARGET = np.array([s.count("C") + 3.0 * s.count("O") for s in SMILES])


@pytest.mark.parametrize("name", CHECKS)
def test_sklearn_estimator_checks_that_apply(name: str) -> None:
    check = getattr(estimator_checks, name)
    assert check("MoleculeEmbedder", MoleculeEmbedder()) is None  # a check that fails raises


def test_equals_embed(model_file: Path, model: CMIMModel) -> None:
    for kind in ("informative", "mean"):
        embedder = MoleculeEmbedder(str(model_file), kind=kind)
        np.testing.assert_allclose(embedder.fit_transform(SMILES), model.embed(SMILES, kind), rtol=1e-5, atol=1e-6)
        assert list(embedder.get_feature_names_out())[:2] == [f"{kind}0", f"{kind}1"]
        assert len(embedder.get_feature_names_out()) == 32


def test_layers_and_pooling_are_passed_to_the_model(model_file: Path, model: CMIMModel) -> None:
    embedder = MoleculeEmbedder(str(model_file), layers=(1, 2), pooling="last")
    expected = model.embed(SMILES, layers=(1, 2), pooling="last")
    np.testing.assert_allclose(embedder.fit_transform(SMILES), expected, rtol=1e-5, atol=1e-6)
    assert len(embedder.get_feature_names_out()) == 64


def test_in_pipelines_and_searches(model_file: Path) -> None:
    pipeline = make_pipeline(MoleculeEmbedder(str(model_file)), StandardScaler(), Ridge(alpha=0.1))
    smiles = np.array(SMILES)
    assert pipeline.fit(smiles, TARGET).score(smiles, TARGET) > 0.9
    assert np.isfinite(cross_val_score(pipeline, smiles, TARGET, cv=3)).all()
    search = GridSearchCV(pipeline, {"moleculeembedder__kind": ["mean", "informative"]}, cv=3).fit(smiles, TARGET)
    assert search.best_params_["moleculeembedder__kind"] in ("mean", "informative")


def test_in_a_column_transformer(model_file: Path, model: CMIMModel) -> None:
    table = pd.DataFrame({"smiles": SMILES, "dose": TARGET})
    for columns in ("smiles", ["smiles"]):
        both = ColumnTransformer([("m", MoleculeEmbedder(str(model_file)), columns), ("d", "passthrough", ["dose"])])
        out = both.fit_transform(table)
        assert out.shape == (len(SMILES), 33)
        np.testing.assert_allclose(out[:, :32], model.embed(SMILES), rtol=1e-4, atol=1e-5)


def test_pandas_output(model_file: Path) -> None:
    out = (
        MoleculeEmbedder(str(model_file))
        .set_output(transform="pandas")
        .fit(SMILES)
        .transform(pd.Series(SMILES, index=range(10, 42)))
    )
    assert list(out.columns[:2]) == ["informative0", "informative1"]
    assert list(out.index[:2]) == [10, 11]


def test_pickles_contain_settings_but_no_weights(model_file: Path) -> None:
    embedder = MoleculeEmbedder(str(model_file)).fit(SMILES)
    data = pickle.dumps(embedder)
    assert len(data) < 2000
    np.testing.assert_allclose(pickle.loads(data).transform(SMILES), embedder.transform(SMILES), rtol=1e-5, atol=1e-6)
    assert clone(embedder).get_params() == embedder.get_params()


def test_a_loaded_model_is_accepted(model: CMIMModel) -> None:
    embedder = MoleculeEmbedder(model)
    np.testing.assert_allclose(clone(embedder).fit_transform(SMILES), model.embed(SMILES), rtol=1e-5, atol=1e-6)


def test_errors(model_file: Path) -> None:
    with pytest.raises(NotFittedError):
        MoleculeEmbedder(str(model_file)).transform(SMILES)
    with pytest.raises(CheckpointError, match="no model 'nowhere'"):
        MoleculeEmbedder("nowhere").fit(SMILES)
    with pytest.raises(InvalidSmilesError, match="index 1"):
        MoleculeEmbedder(str(model_file)).fit(SMILES).transform(["C", "C1C"])
    with pytest.raises(ConfigError, match="kind"):
        MoleculeEmbedder(str(model_file), kind="means").fit(SMILES).transform(["C"])


def replace_model(path: Path) -> None:
    """Another model of the same shape takes the place of a file."""
    other = random_model()
    other.weights["decoder_norm.weight"].mul_(1.01)
    write_model_file(path, other)


@pytest.fixture
def own_file(model_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(model_file, tmp_path / "own.nemo"))


def test_another_model_in_the_place_of_the_fitted_one_is_an_error(own_file: Path, model_file: Path) -> None:
    pipeline = make_pipeline(MoleculeEmbedder(str(own_file)), StandardScaler(), Ridge()).fit(SMILES, TARGET)
    before, saved = pipeline.predict(SMILES), pickle.dumps(pipeline)
    was = pipeline[0].fingerprint_
    replace_model(own_file)
    now = load(own_file).fingerprint()
    message = rf"{own_file}.* was {was[:12]} and is now {now[:12]}\..* Fit the pipeline again, or restore"
    for each in (pipeline, pickle.loads(saved)):
        with pytest.raises(CheckpointError, match=message):
            each.predict(SMILES)
    assert clone(pipeline).fit(SMILES, TARGET)[0].fingerprint_ == now
    shutil.copy(model_file, own_file)
    np.testing.assert_array_equal(pickle.loads(saved).predict(SMILES), before)


@pytest.mark.slow  # starts two processes; with one process: the test above
def test_another_model_is_noticed_in_another_process(own_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "pipeline.joblib"
    pipeline = make_pipeline(MoleculeEmbedder(str(own_file)), Ridge()).fit(SMILES, TARGET)
    joblib.dump(pipeline, saved)
    code = f"import joblib; print(*joblib.load({str(saved)!r}).predict(['CCO']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(pipeline.predict(["CCO"])[0], rel=1e-4)
    replace_model(own_file)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "has changed since this MoleculeEmbedder was fitted" in done.stderr and not done.stdout


@pytest.mark.parametrize("name", ["cmim_small", None])
def test_a_shipped_name_that_holds_another_model_is_an_error(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    write_model_file(tmp_path / "cmim_small.nemo", random_model())
    write_checksums(tmp_path)
    shipped._cached.cache_clear()
    embedder = MoleculeEmbedder(name).fit(SMILES)
    vectors = embedder.transform(SMILES)
    replace_model(tmp_path / "cmim_small.nemo")
    write_checksums(tmp_path)
    shipped._cached.cache_clear()
    try:
        with pytest.raises(CheckpointError, match="model 'cmim_small' has changed"):
            embedder.transform(SMILES)
        assert not np.allclose(embedder.fit_transform(SMILES), vectors)
    finally:
        shipped._cached.cache_clear()


def test_settings_that_change_the_embedding_need_a_new_fit(model_file: Path) -> None:
    for change in ({"kind": "mean"}, {"layers": (1,)}, {"pooling": "last"}):
        embedder = MoleculeEmbedder(str(model_file)).fit(SMILES).set_params(**change)
        with pytest.raises(CheckpointError, match="has changed since"):
            embedder.transform(SMILES)
    embedder.set_params(layers=None, pooling="mean", batch_size=3, device="cpu", on_invalid="nan", standardise=("desalt",))
    assert embedder.transform(SMILES).shape == (len(SMILES), 32)


def test_a_pickle_without_a_fingerprint_must_be_fitted_again(model_file: Path) -> None:
    embedder = MoleculeEmbedder(str(model_file)).fit(SMILES)
    del embedder.fingerprint_, embedder.standardise  # as an earlier version pickled it
    with pytest.raises(CheckpointError, match=r"fitted by an earlier version.* Fit the pipeline again"):
        pickle.loads(pickle.dumps(embedder)).transform(SMILES)


def test_a_model_that_is_passed_as_an_object_is_pickled_with_its_weights(own_file: Path) -> None:
    embedder = MoleculeEmbedder(load(own_file, "cpu")).fit(SMILES)
    vectors, saved = embedder.transform(SMILES), pickle.dumps(embedder)
    own_file.unlink()
    again = pickle.loads(saved)
    np.testing.assert_array_equal(again.transform(SMILES), vectors)
    again.model = load_other(again.model)
    with pytest.raises(CheckpointError, match="has changed since"):
        again.transform(SMILES)


def load_other(model: CMIMModel) -> CMIMModel:
    """A model without a name, with other weights."""
    other = random_model()
    other.weights["decoder_norm.weight"].mul_(1.01)
    return CMIMModel(other, model.device)


def test_molecules_are_standardised(model_file: Path, model: CMIMModel) -> None:
    embedder = MoleculeEmbedder(str(model_file), standardise=("extras", "desalt"))
    np.testing.assert_allclose(embedder.fit_transform(["CCO.Cl salt"]), model.embed(["CCO"]), rtol=1e-5, atol=1e-6)
    assert pickle.loads(pickle.dumps(embedder)).standardise == ("extras", "desalt")
    with pytest.raises(ConfigError, match="this step is unknown"):
        MoleculeEmbedder(str(model_file), standardise=("salts",)).fit(SMILES)


def test_true_removes_salts_and_charges(model_file: Path, model: CMIMModel) -> None:
    embedder = MoleculeEmbedder(str(model_file), standardise=True)
    np.testing.assert_allclose(embedder.fit_transform(["CC[NH3+].[Cl-]"]), model.embed(["CCN"]), rtol=1e-5, atol=1e-6)
    assert not np.allclose(embedder.transform(["CC(=O)CC"]), embedder.transform(["CC(O)=CC"]))  # tautomers stay different
    table = standardise(["CC[NH3+].[Cl-]", "OCC", "C1C", Chem.MolFromSmiles("CC(=O)[O-]")])
    assert table["standardised"].tolist()[:2] == ["CCN", "CCO"] and table["standardised"][3] == "CC(=O)O"
    assert table["changed"].tolist() == [True, False, False, True]
    assert table["standardised"].isna().tolist() == [False, False, True, False] and "unclosed ring" in table["reason"][2]
    assert standardise(["CC[NH3+].[Cl-]"], False)["standardised"][0] == "CC[NH3+].[Cl-]"


def test_polars_output(model_file: Path) -> None:
    out = MoleculeEmbedder(str(model_file)).set_output(transform="polars").fit_transform(pl.Series(SMILES))
    assert isinstance(out, pl.DataFrame) and out.columns[:2] == ["informative0", "informative1"] and out.shape == (len(SMILES), 32)


def test_a_progress_bar_is_shown_on_request(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verbose, shown in ((0, ""), (1, "embed: 100%"), ({"desc": "mine"}, "mine: 100%")):
        MoleculeEmbedder(str(model_file), verbose=verbose).fit_transform(SMILES)
        printed = capsys.readouterr().err
        assert shown in printed and bool(printed) == bool(verbose)


def test_a_pickle_of_an_earlier_version_has_no_n_jobs(model_file: Path) -> None:
    embedder = MoleculeEmbedder(str(model_file)).fit(SMILES)
    del embedder.n_jobs, embedder.verbose
    assert pickle.loads(pickle.dumps(embedder)).transform(SMILES).shape == (len(SMILES), 32)


@pytest.mark.parametrize("n_jobs", [0, 1.5, "all"])
def test_n_jobs_must_be_a_number_of_processes(model_file: Path, n_jobs: Any) -> None:
    with pytest.raises(ConfigError, match="n_jobs must"):
        MoleculeEmbedder(str(model_file), n_jobs=n_jobs).fit(SMILES)
