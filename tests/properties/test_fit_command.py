"""`nemo-cmim fit`: from a file to a property model, and what it says about files that it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim import PropertyModel, load_property_model
from nemo_cmim.cli import main
from tests.properties.property_data import LABELS, SMILES, VALUES

FAST = ("--features", "morgan64", "--head", "ridge", "--folds", "2")
Fit = Callable[..., int]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    def fit(source: Path | str, *arguments: object, target: str = "logS") -> int:
        path = tmp_path / "in.csv"
        if isinstance(source, str):
            path.write_text(source, encoding="utf-8")
        command = ["fit", path if isinstance(source, str) else source, "--target", target, "-o", tmp_path / "out.model"]
        return main([*map(str, command), *FAST, *map(str, arguments)])

    return fit


def text(values: object = VALUES, name: str = "logS", **more: object) -> str:
    return pd.DataFrame({"name": [f"m{row}" for row in range(len(SMILES))], "smiles": SMILES, name: values, **more}).to_csv(
        index=False
    )


def test_the_model_is_that_of_python(tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(text(), "--unit", "log mol/L", "--licence", "CC0", "--seed", "3", "--coverage", "0.8") == 0
    found = load_property_model(tmp_path / "out.model")
    expected = PropertyModel(features="morgan64", head="ridge", folds=2, random_state=3, coverage=0.8)
    expected.fit(SMILES, pd.Series(VALUES, name="logS"))
    pd.testing.assert_frame_equal(found.predict_table(SMILES), expected.predict_table(SMILES))
    assert (found.card_["unit"], found.card_["licence"], found.target_names_) == ("log mol/L", "CC0", ["logS"])
    said = capsys.readouterr().out
    rmse = expected.metrics_["mean"][0]
    assert "60 rows, 60 molecules; features: morgan64; head: ridge" in said and f"| logS | rmse | {rmse:.4g} |" in said
    assert "rmse and mae in log mol/L" in said


def test_several_targets_with_missing_values(tmp_path: Path, fit: Fit) -> None:
    other = np.where(np.arange(len(SMILES)) % 3 == 0, np.nan, -VALUES)
    assert fit(text(other=other), "--target", "other") == 0
    model = load_property_model(tmp_path / "out.model")
    assert model.target_names_ == ["logS", "other"] and model.predict(["CCO"]).shape == (1, 2)
    assert model.card_["targets"]["other"]["values"] == np.isfinite(other).sum()


def test_classes_of_text(tmp_path: Path, fit: Fit) -> None:
    assert fit(text(LABELS), "--task", "classification", "--head", "logistic") == 0
    assert list(load_property_model(tmp_path / "out.model").classes_) == ["high", "low"]


@pytest.mark.parametrize(
    "times", [np.arange(len(SMILES)), [f"2024-{1 + row // 28:02d}-{1 + row % 28:02d}" for row in range(len(SMILES))]]
)
def test_split_by_time(tmp_path: Path, fit: Fit, times: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(text(when=times), "--split", "time", "--time-column", "when", "--on-invalid", "drop") == 0
    assert fit(text(), "--split", "time", "--overwrite") == 2
    assert fit(text(when=times), "--time-column", "when", "--overwrite") == 2
    said = capsys.readouterr().err
    assert "--split time needs --time-column" in said and "--time-column has no effect without --split time" in said


def test_times_that_cannot_be_read_are_rows_that_cannot_be_used(
    tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [f"2024-01-{1 + row % 28:02d}" for row in range(len(SMILES))]
    times[5], times[8] = "31.12.2020", "inf"
    arguments = ("--split", "time", "--time-column", "when")
    assert fit(text(when=times), *arguments) == 2
    said = capsys.readouterr().err
    assert "in.csv, line 7: the time, 'when', is '31.12.2020', neither a finite number nor a date such as 2024-05-31" in said
    assert "2 of 60 rows cannot be used" in said and "--on-invalid drop" in said
    assert fit(text(when=times), *arguments, "--on-invalid", "drop", "--rejects", tmp_path / "bad.csv") == 0
    assert list(pd.read_csv(tmp_path / "bad.csv")["row"]) == [7, 10]
    times[5] = times[8] = "3.5"
    capsys.readouterr()
    assert fit(text(when=times), *arguments, "--overwrite") == 2
    assert "in.csv, line 7: the time, 'when', is the number '3.5', but others are dates" in capsys.readouterr().err


def test_excel_export(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "excel.csv"
    pd.DataFrame({"Smiles": SMILES, "logS": VALUES}).to_csv(path, index=False, sep=";", encoding="utf-8-sig", lineterminator="\r\n")
    assert fit(path) == 0
    assert load_property_model(tmp_path / "out.model").card_["rows"] == len(SMILES)


def test_left_out_rows_are_listed(tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    bad = "a,C1CC,1\nb,CCO,5 mg\nc,CCO,\nd,,2\ne,CCO,inf\nf,CCO,high\ng,CCO\n"
    assert fit(text() + bad) == 2
    said = capsys.readouterr().err
    assert "in.csv, line 62: the SMILES ('C1CC') could not be parsed" in said
    assert "7 of 67 rows cannot be used" in said and "--on-invalid drop" in said
    assert not (tmp_path / "out.model").exists()
    assert fit(text() + bad, "--on-invalid", "drop", "--rejects", tmp_path / "bad.csv") == 0
    said = capsys.readouterr().err
    assert "7 rows are left out" in said and "... and 4 more" in said
    rejects = pd.read_csv(tmp_path / "bad.csv", keep_default_na=False)
    assert list(rejects["row"]) == [62, 63, 64, 65, 66, 67, 68]
    assert list(rejects["reason"][1:]) == [
        "'logS' is '5 mg', not a number",
        "'logS' is missing",
        "no SMILES",
        "'logS' is 'inf', not a finite number",
        "'logS' is 'high', not a number (labels need --task classification)",
        "it has 2 columns, but the file has 3. Correct the line",
    ]
    assert load_property_model(tmp_path / "out.model").card_["rows"] == len(SMILES)


@pytest.mark.parametrize("task", [(), ("--task", "classification", "--head", "logistic")], ids=["regression", "classification"])
def test_errors_of_spreadsheets_are_left_out(
    tmp_path: Path, fit: Fit, task: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = text(LABELS if task else VALUES) + "a,CCO,#DIV/0!\nb,CCN,#N/A\n"
    assert fit(file, *task) == 2
    assert "in.csv, line 62: 'logS' is '#DIV/0!', an error of a spreadsheet, not a value" in capsys.readouterr().err
    assert fit(file, *task, "--on-invalid", "drop", "--rejects", tmp_path / "bad.csv") == 0
    assert list(pd.read_csv(tmp_path / "bad.csv")["row"]) == [62, 63]
    assert load_property_model(tmp_path / "out.model").card_["rows"] == len(SMILES)


def test_molecules_too_large_for_descriptors_are_left_out(tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(text() + f"a,{'C' * 3000},1\n", "--features", "rdkit") == 2
    assert "has 3,000 heavy atoms; descriptors are computed for at most 200" in capsys.readouterr().err
    assert fit(text() + f"a,{'C' * 3000},1\n", "--features", "rdkit", "--on-invalid", "drop") == 0
    (tmp_path / "new.csv").write_text(f"smiles\nCCO\n{'C' * 3000}\n")
    assert main(["predict", str(tmp_path / "out.model"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "found.csv")]) == 0
    found = pd.read_csv(tmp_path / "found.csv")
    assert found["logS"].notna().tolist() == [True, False] and "3,000 heavy atoms" in found["reason"][1]


def test_contradicting_rows_are_listed_by_lines(
    fit: Fit, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert fit(text() + "x,OCC,99\n") == 0
    said = capsys.readouterr().err
    assert "1 molecules have rows that contradict each other; all rows are used" in said
    assert "CCO, logS from 3.0 to 99.0" in said and "in.csv, line 13; " in said and "in.csv, line 62" in said
    assert not recwarn


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("smiles,logS\n", (), "in.csv holds no rows"),
        ("smiles,logS,logS\nCC,1,2\n", (), "in.csv has 2 columns 'logS'"),
        (text(), ("--target", "melting"), "has no column 'melting'; its columns are 'name', 'smiles', 'logS'"),
        (text(), ("--target", "logS"), "The target 'logS' is named twice"),
        (
            text(),
            ("--smiles", "name"),
            "60 of 60 rows have no valid SMILES in the column 'name'. Name another one with --smiles",
        ),
        (text(), ("--target", "smiles"), "is the SMILES column and a target"),
        (text([str(value).replace(".", ",") for value in VALUES]), (), "Write a decimal point, not a comma"),
        (text(1.5), (), "The target 'logS' is constant: 1.5"),
        (text("low"), ("--task", "classification", "--head", "logistic"), "has only the class 'low'"),
        ("smiles,logS\nCC,1\nCCC,2\n", ("--folds", "5"), "2 distinct molecules are too few for 5 folds"),
        ("not read", ("--head", "forest"), "--head forest is unknown for regression"),
        ("not read", ("--task", "classification"), "--head ridge is unknown for classification"),
        (text(), ("--features", "mol2vec"), "--features mol2vec"),
        (text(), ("--coverage", "1.5"), "--coverage"),
        (text(), ("--overwrite", "--rejects", "{folder}/out.model"), "is also another output"),
    ],
)
def test_errors(
    tmp_path: Path, fit: Fit, content: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(content, *(one.format(folder=tmp_path) for one in arguments)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_rows_without_a_logarithm_or_with_words_for_missing_are_named_by_their_lines(
    tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = text(np.abs(VALUES) + 1) + "x,C1CC,1\nx,CCO,-2\nx,CCN,NA\n"
    assert fit(rows, "--target-transform", "log10", "--on-invalid", "drop", "--rejects", tmp_path / "bad.csv") == 0
    rejected = pd.read_csv(tmp_path / "bad.csv", keep_default_na=False)
    assert rejected["row"].tolist() == [62, 63, 64]
    assert "'logS' is -2, but --target-transform log10 needs values above 0" in rejected["reason"][1]
    assert "'logS' is NA, which many programs write for a missing value. Leave the cell empty" in rejected["reason"][2]
    assert "labels" not in rejected["reason"][2]
    (tmp_path / "out.model").unlink()
    assert fit(text([*LABELS[:-1], "NA"]), "--task", "classification", "--head", "logistic") == 2
    assert "line 61: 'logS' is NA, which many" in capsys.readouterr().err


def test_the_model_of_the_embeddings_is_not_replaced(tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "out.model"
    own.write_text("a model")
    assert fit(text(), "--model", own, "--overwrite") == 2
    assert f"{own} is also an input" in capsys.readouterr().err and own.read_text() == "a model"


def test_an_existing_model_is_not_replaced(tmp_path: Path, fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out.model").write_text("mine")
    assert fit(text()) == 2
    assert "already exists" in capsys.readouterr().err and (tmp_path / "out.model").read_text() == "mine"
    assert fit(text(), "--overwrite") == 0
    assert load_property_model(tmp_path / "out.model").card_["rows"] == len(SMILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout of BioNeMo: 40 rows of train in two files, 10 of val, 10 of test."""
    table = pd.DataFrame({"smiles": SMILES, "logS": VALUES, "label": LABELS}).sample(frac=1, random_state=0)
    for place, rows in (("train/x000", [0, 20]), ("train/x001", [20, 40]), ("val/x000", [40, 50]), ("test/x000", [50, 60])):
        path = tmp_path / "task" / f"{place}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.iloc[slice(*rows)].to_csv(path, index=False)
    return tmp_path / "task"


def fit_folder(folder: Path, *arguments: str) -> int:
    return main(["fit", "--folder", str(folder), "-o", str(folder.parent / "out.model"), *FAST, *arguments])


def test_folder_with_a_given_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_folder(folder, "--target", "logS") == 0
    training = pd.concat([pd.read_csv(folder / "train" / name) for name in ("x000.csv", "x001.csv")], ignore_index=True)
    expected = PropertyModel(features="morgan64", head="ridge", folds=2).fit(training["smiles"], training["logS"])
    said = capsys.readouterr().out
    assert "40 rows, 40 molecules" in said
    for part in ("val", "test"):
        rows = pd.read_csv(folder / part / "x000.csv")
        rmse = float(np.sqrt(np.mean((expected.predict(rows["smiles"]) - rows["logS"]) ** 2)))
        table = expected.predict_table(rows["smiles"])
        coverage = rows["logS"].between(table["logS_lower"], table["logS_upper"]).mean()
        assert (
            f"| {part} | logS | rmse | {rmse:.4g} | 10 |" in said and f"| {part} | logS | coverage | {coverage:.4g} | 10 |" in said
        )


def test_the_card_keeps_the_metrics_of_the_other_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_folder(folder, "--target", "logS") == 0
    said, parts = capsys.readouterr().out, load_property_model(folder.parent / "out.model").card_["parts"]
    assert [row["metric"] for row in parts] == ["rmse", "mae", "r2", "spearman", "coverage"] * 2
    for row in parts:
        assert f"| {row['part']} | {row['target']} | {row['metric']} | {row['value']:.4g} | {row['rows']} |" in said


def test_metrics_that_are_not_defined_for_a_part_are_missing(folder: Path) -> None:
    path = folder / "test" / "x000.csv"
    pd.read_csv(path).assign(logS=1.5).to_csv(path, index=False)
    assert fit_folder(folder, "--target", "logS") == 0
    parts = load_property_model(folder.parent / "out.model").card_["parts"]
    assert {row["metric"] for row in parts if row["value"] is None} == {"r2", "spearman"}


def test_folder_of_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--target", "label", "--task", "classification", "--head", "logistic")
    assert fit_folder(folder, *arguments) == 0
    said = capsys.readouterr().out
    sets = load_property_model(folder.parent / "out.model").predict_table((test := pd.read_csv(folder / "test/x000.csv"))["smiles"])
    coverage = np.mean([label in labels.split("; ") for label, labels in zip(test["label"], sets["label_set"])])
    assert "| test | label | roc_auc | " in said and f"| test | label | coverage | {coverage:.4g} | 10 |" in said
    with (folder / "val" / "x000.csv").open("a") as file:
        file.write("CCCCCCCCCO,1,medium\n")
    assert fit_folder(folder, *arguments, "--overwrite") == 2
    said = capsys.readouterr().err
    assert "val/x000.csv, line 12: 'label' is 'medium', which is not a label of train" in said


def test_folder_with_molecules_in_two_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = pd.read_csv(folder / "train" / "x000.csv").iloc[:3]
    row.to_csv(folder / "val" / "x001.csv", index=False)
    with pytest.warns(UserWarning, match="3 of 13 rows of val have molecules that are also in train"):
        assert fit_folder(folder, "--target", "logS") == 0


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_folder(tmp_path, "--target", "logS") == 2
    assert "must be a folder that contains the folders train, and val or test" in capsys.readouterr().err
    assert fit_folder(folder, "in.csv", "--target", "logS") == 2
    assert "Name either FILE or --folder FOLDER" in capsys.readouterr().err
    (folder / "test" / "x000.csv").unlink()
    assert fit_folder(folder, "--target", "logS") == 2
    assert "test contains no file x*.csv" in capsys.readouterr().err
