"""The page about a property model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from sklearn.exceptions import NotFittedError

from nemo_cmim import PropertyModel, cli, load_property_model, write_property_report
from nemo_cmim.errors import ConfigError, DataError, InvalidShapeError
from nemo_cmim.properties.intervals import held_out_coverage
from nemo_cmim.report.plots import Layer, plot
from nemo_cmim.report.property_plots import class_plots, value_plots
from nemo_cmim.report.property_report import property_report
from tests.properties.property_data import LABELS, SMILES, VALUES
from tests.report.page import HOSTILE, Page, check_offline

FAST: dict[str, Any] = {"features": "morgan64", "head": "ridge", "folds": 3}
DOT = re.compile(r"M[\d.]+ [\d.]+h0")


@pytest.fixture(scope="module")
def model() -> PropertyModel:
    """Two targets, one with missing values; an invalid row; rows that contradict each other."""
    smiles = [*SMILES, "C" * 499 + "(", "OCC"]
    y = pd.DataFrame({"logS": [*VALUES, 1.0, 99.0], "b": [*np.where(np.arange(60) % 3, -VALUES, np.nan), 1.0, np.nan]})
    with pytest.warns(UserWarning):
        return PropertyModel(**FAST, on_invalid="nan").fit(smiles, y)


def test_a_page_of_regression(model: PropertyModel) -> None:
    html = property_report(model)
    check_offline(html)
    page = Page(html)
    assert html == property_report(model)
    for name in ("logS", "b"):
        table = model.cross_validation_[model.cross_validation_["target"] == name]
        coverage = held_out_coverage(table["score"].to_numpy(), table["fold"].to_numpy(), 0.9)
        assert [name, f"{100 * coverage:.4g}\u00a0%", f"{len(table)}"] in page.rows
        assert "Parity" in page.sections[name] and "Coverage of intervals" in page.sections[name]
    rmse = model.metrics_.iloc[0]
    assert ["logS", "rmse", f"{rmse['mean']:.4g}", f"{rmse['sd']:.4g}", "3"] in page.rows
    assert ["row 60", "C" * 400 + "… (500 characters)"] in [row[:2] for row in page.rows]
    assert ["CCO", "logS", "3", "99", "row 11; row 61"] in page.rows
    assert "The head was given" in page.sections["Heads"] and "Other parts of the folder" not in page.sections


def test_the_worst_predictions_are_beside_their_nearest_training_molecules(model: PropertyModel) -> None:
    figures = [figure for figure in Page(property_report(model)).figures if re.match("drawn (row|nearest)", figure)]
    assert len(figures) == 2 * 2 * 10
    generator = rdFingerprintGenerator.GetMorganGenerator(2, fpSize=2048)
    smiles = [*SMILES, "", "CCO"]
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(one)) for one in smiles]
    for name, shown in (("logS", figures[:20]), ("b", figures[20:])):
        table = model.cross_validation_[model.cross_validation_["target"] == name]
        worst = table.nlargest(10, "score")
        for row, left, right in zip(worst.itertuples(), shown[::2], shown[1::2]):
            assert left.endswith(Chem.CanonSmiles(smiles[row.row])) and f"row {row.row}, fold {row.fold}" in left
            assert f"measured {row.measured:.4g}, predicted {row.prediction:.4g}" in left
            others = table[table["fold"] != row.fold]
            similar = DataStructs.BulkTanimotoSimilarity(prints[row.row], [prints[other] for other in others["row"]])
            near = others.iloc[int(np.argmax(similar))]
            assert f"Tanimoto similarity {max(similar):.2f}" in right
            if similar.count(max(similar)) == 1:
                assert f"measured {near['measured']:.4g}" in right and right.endswith(Chem.CanonSmiles(smiles[near["row"]]))


def test_a_page_of_classes_with_hostile_text() -> None:
    labels = np.where(VALUES > 2, HOSTILE, np.where(VALUES > 1, 'a"b', "c&d"))
    model = PropertyModel("classification", features="morgan64", head="logistic", folds=3)
    model.fit(SMILES, pd.Series(labels, name=f"y{HOSTILE}"))
    model.card_["unit"] = HOSTILE
    html = property_report(model, places=[f"{HOSTILE} {row}" for row in range(60)])
    check_offline(html)
    page = Page(html)
    section = page.sections[f"y{HOSTILE}"]
    assert all(name in section for name in ("ROC", "Precision and recall", "Reliability"))
    for label in (HOSTILE, 'a"b', "c&d"):
        assert section.count(f"{label}: area 0.") == 1


def test_the_second_of_two_classes_has_a_curve() -> None:
    with pytest.warns(UserWarning, match="did not try svm"):
        model = PropertyModel("classification", features="morgan64", folds=3, time_limit=1e-9).fit(SMILES, LABELS)
    page = Page(property_report(model))
    assert "low: area" in page.sections["target"] and "high: area" not in page.sections["target"]
    assert [row[-2:] for row in page.rows if row[0] == "logistic"] == [["3", "chosen"]]
    assert {row[-1] for row in page.rows if row[0] in ("svm", "mlp")} == {"out of time"}


def test_split_by_time_in_one_fold() -> None:
    model = PropertyModel(**FAST | {"folds": 1}, split="time", target_transform="log10")
    page = Page(property_report(model.fit(SMILES, 10.0**VALUES, groups=np.arange(60))))
    assert "log10(measured)" in page.sections["target"] and "tested in one fold only" in page.sections["target"]
    assert "on the scale of the transformed target" in page.sections["target"]
    assert ["target", "not measured (one fold)", "30"] in page.rows


def table_of(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth, p = rng.normal(size=rows), rng.random(rows)
    values = {"fold": np.arange(rows) % 5, "measured": truth, "prediction": truth + rng.normal(size=rows)}
    return pd.DataFrame(values).assign(score=lambda t: (t["measured"] - t["prediction"]).abs(), p_a=p, p_b=1 - p)


def test_many_rows_give_few_points() -> None:
    table = table_of(100_000)
    parity, coverage = value_plots(table, table.nlargest(10, "score"), "mg", None)
    assert [len(DOT.findall(path)) for _, path in parity.paths] == [0, 3000, 10]
    assert "3,000 of the 100,000 dots are drawn" in parity.caption and parity.x_label == "measured / mg"
    assert len(DOT.findall(coverage.paths[-1][1])) == 10
    classes = class_plots(table.assign(measured=np.where(table["p_b"] > 0.6, "b", "a")), np.array(["a", "b"]))
    assert sum(len(path) for one in [parity, coverage, *classes] for _, path in one.paths) < 100_000


def test_coverage_lies_on_the_diagonal_for_equal_folds() -> None:
    coverage = value_plots(table := table_of(20_000), table.head(1), "", None)[1]
    x, y = np.array(re.findall(r"([\d.]+) ([\d.]+)", coverage.paths[1][1]), dtype=float).T
    box = coverage.box
    observed = (box["floor"] - y) / (box["floor"] - box["top"])
    np.testing.assert_allclose((x - box["left"]) / (box["right"] - box["left"]), [*np.arange(1, 10) / 10, 0.95], atol=1e-3)
    np.testing.assert_allclose(observed, [*np.arange(1, 10) / 10, 0.95], atol=0.01)


def test_predictions_beyond_the_axis_are_at_its_end() -> None:
    table = table_of(100)
    table.loc[3, "prediction"] = np.inf
    parity = value_plots(table, table.iloc[3:4], "", None)[0]
    assert "3 predictions are beyond the axis" in parity.caption
    assert parity.paths[2][1].endswith(f" {parity.box['top']}.0h0") and "nan" not in str(parity) and "inf" not in str(parity.paths)


def test_a_plot_has_its_points_at_the_ticks() -> None:
    found = plot("n", "c", ("x", "y"), [Layer("line", np.array([0, 0.2, 1]), np.array([1, 0.4, 0]))])
    places = {text: (x, y) for (x, text), (y, _) in zip(found.x_ticks, found.y_ticks)}
    assert list(places) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    ends = [(places["0"][0], places["1"][1]), (places["0.2"][0], places["0.4"][1]), (places["1"][0], places["0"][1])]
    assert found.paths == [("line", "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ends))]


def test_the_page_shows_the_first_12_targets() -> None:
    y = pd.DataFrame({f"t{number}": VALUES + number for number in range(14)})
    page = Page(property_report(PropertyModel(**FAST).fit(SMILES, y)))
    assert "t11" in page.sections and "t12" not in page.sections
    assert "last 2 targets" in page.sections["Further targets"] and ["t13", "rmse"] in [row[:2] for row in page.rows]


def test_errors(model: PropertyModel, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with pytest.raises(NotFittedError):
        write_property_report(PropertyModel(), path)
    with pytest.raises(InvalidShapeError, match="places has 3 values for the 62 rows of X"):
        write_property_report(model, path, places=["a", "b", "c"])
    model.save(tmp_path / "model")
    with pytest.raises(ConfigError, match="was read from a file, which does not contain the out-of-fold predictions"):
        write_property_report(load_property_model(tmp_path / "model"), path)
    path.write_text("mine")
    with pytest.raises(DataError, match="already exists"):
        write_property_report(model, path)
    assert path.read_text() == "mine"


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"smiles": [*SMILES, "C1CC"], "logS": [*VALUES, 1.0]})
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        table.to_csv(tmp_path / part / "x000.csv", index=False)
    command = ["fit", "--folder", tmp_path, "--target", "logS", "-o", tmp_path / "m", "--report", tmp_path / "r.html"]
    arguments = [*map(str, command), "--unit", "mol/L", "--features", "morgan64", "--head", "ridge", "--on-invalid", "drop"]
    with pytest.warns(UserWarning, match="also in train"):
        assert cli.main(arguments) == 0
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    parts = load_property_model(tmp_path / "m").card_["parts"]
    assert [["test", "logS", row["metric"], f"{row['value']:.4g}", "60"] in page.rows for row in parts] == [True] * 5
    assert "measured / mol/L" in page.sections["logS"] and f"{tmp_path}/train/x000.csv, line " in " ".join(page.figures)
    assert [row[:2] for row in page.rows if row[1:2] == ["C1CC"]] == [
        [f"{tmp_path}/{part}/x000.csv, line 62", "C1CC"] for part in ("train", "test")
    ]
    capsys.readouterr()
    assert cli.main([*arguments[:-2], "--overwrite", "--report", str(tmp_path / "m")]) == 2
    assert f"{tmp_path}/m is also" in capsys.readouterr().err
