"""The benchmark of property models measures what `PropertyModel` measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import properties
from nemo_cmim import PropertyModel
from nemo_cmim.properties.intervals import conformal_quantile
from nemo_cmim.properties.validation import OutOfFold
from tests.properties.property_data import SMILES, VALUES


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, properties.Data]:
    folder = tmp_path_factory.mktemp("data")
    table = pd.DataFrame({"smiles": [*SMILES, "[Xe]" + "C" * 300], "target": [*np.abs(VALUES) + 1, 2]})
    table.to_csv(folder / "clearance.csv", index=False)
    labels = [*(np.median(VALUES) < VALUES).astype(int), 1]
    table.assign(target=labels, second=pd.array([None, *labels[1:]], "Int64")).to_csv(folder / "classes.csv", index=False)
    return {one.name: one for file in sorted(folder.glob("*.csv")) for one in properties.read(file)}


def test_sets_and_their_tasks(sets: dict[str, properties.Data]) -> None:
    assert {name: one.task for name, one in sets.items()} == {
        "classes": "classification",
        "clearance": "regression",
        "clearance, log10": "regression",
    }
    assert all(len(one.smiles) == len(SMILES) and one.left_out == 1 for one in sets.values())
    assert sets["classes"].targets.names == ("target", "second") and np.isnan(sets["classes"].targets.values_NT[0, 1])
    np.testing.assert_allclose(10 ** sets["clearance, log10"].targets.values_NT, sets["clearance"].targets.values_NT)


@pytest.mark.parametrize(("name", "head"), [("clearance", "svm"), ("clearance", "ridge"), ("classes", "logistic")])
def test_folds_and_predictions_are_those_of_property_models(
    sets: dict[str, properties.Data], work: Path, name: str, head: str
) -> None:
    data = sets[name]
    found = properties.out_of_fold(data, properties.features_of("morgan64+rdkit", data, work), head, "random", 3).table
    y = pd.DataFrame(data.targets.values_NT, columns=data.targets.names)
    model = PropertyModel(data.task, features="morgan64+rdkit", head=head, random_state=3).fit(data.smiles, y)
    assert list(found["row"]) == list(model.cross_validation_["row"]) and list(found) == list(model.cross_validation_)
    value = "p_1" if data.task == "classification" else "prediction"
    np.testing.assert_allclose(found[value], model.cross_validation_[value], rtol=1e-6)


def test_coverage_is_that_of_the_scores_of_the_other_folds() -> None:
    table = pd.DataFrame({"target": "y", "fold": np.repeat([0, 1], 20)})
    scores = np.concatenate([np.arange(20.0), np.arange(20.0) / 2])
    expected = np.mean([scores[:20] <= conformal_quantile(scores[20:], 0.9), scores[20:] <= conformal_quantile(scores[:20], 0.9)])
    assert properties.covered(OutOfFold(table, table, [scores], [])) == expected == (10 + 20) / 40


def test_finished_parts_are_kept_and_reported(
    sets: dict[str, properties.Data], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(properties, "HEADS", {"regression": ("ridge", "boosting"), "classification": ("logistic", "svm")})
    monkeypatch.setattr(properties, "MANY_TARGETS", 2)
    monkeypatch.setattr(properties, "SPLITS", ("random", "scaffold"))
    monkeypatch.setattr(properties, "FOLDS", 2)
    parts = [properties.measured(data, "morgan64", seed, work) for data in sets.values() for seed in (0, 1)]
    monkeypatch.delattr(properties, "out_of_fold")
    assert all(
        part.equals(properties.measured(data, "morgan64", seed, work))
        for part, (data, seed) in zip(parts, [(data, seed) for data in sets.values() for seed in (0, 1)])
    )
    found = pd.concat(parts)
    counts = found.groupby(["data", "head"]).size()
    assert dict(counts["clearance"]) == {"ridge": 4, "boosting": 1} and dict(counts["classes"]) == {"logistic": 4}
    lines = properties.report(found, list(sets.values()), ["morgan64"], 2)
    assert sum(line.startswith("| classes | ROC-AUC | logistic |") for line in lines) == 2
    assert sum(line.startswith("| clearance, log10 | RMSE | ridge |") for line in lines) == 2
