"""The scikit-learn transformer."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from nemo_cmim import MoleculeEmbedder
from nemo_cmim.errors import CheckpointError, ConfigError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel

SMILES = ["C" * n + tail for n in range(1, 9) for tail in ("", "O", "N", "c1ccccc1")]
TARGET = np.array([s.count("C") + 3.0 * s.count("O") for s in SMILES])

# `estimator_checks.check_estimator` skips estimators without numeric input; these checks need no numeric input.
CHECKS = [
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


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
