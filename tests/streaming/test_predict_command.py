"""`nemo-cmim predict`: predictions for each row of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim import PropertyModel, load_property_model
from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError, DataError, InvalidSmilesError
from nemo_cmim.molecules import standard_smiles
from nemo_cmim.streaming import predict
from nemo_cmim.streaming.rows import StreamOptions
from tests.properties.property_data import LABELS, SMILES, VALUES
from tests.shipped_names import DEFAULT

ROWS = ["OCC", "C1CC", "CCc1ccccc1", "", "CCO", "CC"]


@pytest.fixture(scope="module")
def regressor(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Path:
    path = tmp_path_factory.mktemp("models") / "y.model"
    model = PropertyModel(features="mean+morgan64", head="ridge", folds=2, model=model_file)
    model.fit(SMILES, pd.Series(VALUES, name="logS")).save(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pd.DataFrame({"id": ["007", "", "a b", "x", "é", "y"], "Smiles": ROWS}).to_csv(tmp_path / "in.csv", index=False)
    return tmp_path / "in.csv"


@pytest.mark.parametrize("size", [1000, 2])
@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_rows_in_are_rows_out(
    tmp_path: Path, source: Path, regressor: Path, model_file: Path, size: int, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_ROWS_AT_ONCE", size)
    rejects = tmp_path / "bad.csv"
    command = ["predict", regressor, source, "-o", tmp_path / out, "--model", model_file, "--rejects", rejects]
    assert main([*map(str, command)]) == 0
    table = (
        pd.read_csv(tmp_path / out, dtype={"id": str}, keep_default_na=True)
        if out == "out.csv"
        else pd.read_parquet(tmp_path / out)
    )
    expected = load_property_model(regressor, model_file).predict_table(ROWS)
    assert list(table) == ["id", "Smiles", *expected.columns[1:]]
    assert list(table["id"].fillna("")) == ["007", "", "a b", "x", "é", "y"] and list(table["Smiles"].fillna("")) == ROWS
    assert list(table["logS"].isna()) == [False, True, False, True, False, False]
    atols = dict.fromkeys(("logS", "logS_lower", "logS_upper", "tanimoto"), 1e-4)
    for column, atol in (atols | {"embedding_distance": 1e-3}).items():  # embeddings are compared in half precision
        np.testing.assert_allclose(table[column], expected[column], rtol=1e-4, atol=atol)
    assert list(table["nearest_training"].fillna("")) == list(expected["nearest_training"].fillna(""))
    assert "unclosed ring" in table["reason"][1] and table["reason"][3] == "no SMILES" and table["reason"].notna().sum() == 2
    assert list(pd.read_csv(rejects)["row"]) == [3, 5]


def test_each_row_is_canonicalised_once(
    tmp_path: Path, source: Path, regressor: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(molecule: str, *args: object, **names: object) -> str:
        read.append(molecule)
        return standard_smiles(molecule, *args, **names)  # type: ignore[arg-type]

    model = load_property_model(regressor, model_file)
    for user in ("properties.inputs", "inference.inputs"):
        monkeypatch.setattr(f"nemo_cmim.{user}.standard_smiles", counted)
    predict.predict_file(model, source, tmp_path / "out.csv", options=StreamOptions("nan"))
    assert [smiles for smiles in read if smiles != "C"] == ROWS, "and C, for the types of the columns"


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_call_is_resumed(
    tmp_path: Path, source: Path, regressor: Path, model_file: Path, damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_ROWS_AT_ONCE", 2)
    command = [*map(str, ["predict", regressor, source, "--model", model_file, "--rejects", tmp_path / "bad.csv", "-o"])]
    assert main([*command, str(tmp_path / "whole.csv")]) == 0
    rejects = (tmp_path / "bad.csv").read_text()
    (tmp_path / "bad.csv").unlink()
    calls: list[list[str]] = []
    compute = PropertyModel.predict_table

    def counted(self: PropertyModel, smiles: list[str]) -> pd.DataFrame:
        calls.append(smiles)
        if calls[2:] and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return compute(self, smiles)

    monkeypatch.setattr(PropertyModel, "predict_table", counted)
    assert main([*command, str(tmp_path / "out.csv"), "--resume"]) == 130
    folder = tmp_path / ".out.csv.unfinished"
    assert len(list(folder.glob("*.block"))) == 1 and not (tmp_path / "out.csv").exists()
    if damaged:
        (folder / "00000000.block").write_bytes(b"[[[")
    (tmp_path / "again").touch()
    calls.clear()
    assert main([*command, str(tmp_path / "out.csv"), "--resume"]) == 0
    assert calls == [["C"], *([ROWS[:2]] if damaged else []), ROWS[2:4], ROWS[4:]]
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes() and not folder.exists()
    assert (tmp_path / "bad.csv").read_text() == rejects


def test_work_of_another_model_is_not_resumed(tmp_path: Path, source: Path, regressor: Path, model_file: Path) -> None:
    model, target = load_property_model(regressor, model_file), tmp_path / "out.csv"
    source.write_text("smiles\n" + "C\n" * 5000 + "C1CC\n")
    with pytest.raises(InvalidSmilesError, match="line 5002"):
        predict.predict_file(model, source, target, resume="a")
    with pytest.raises(DataError, match="has different model"):
        predict.predict_file(model, source, target, resume="b")
    with pytest.raises(DataError, match="has different prefix"):
        predict.predict_file(model, source, target, resume="a", prefix="p_")
    with pytest.raises(ConfigError, match="standard output"):
        predict.predict_file(model, source, "-", resume="a")


@pytest.mark.parametrize("option", ["-o", "--rejects"])
def test_models_are_not_replaced(
    tmp_path: Path, source: Path, regressor: Path, model_file: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"property": tmp_path / "p.csv", "embedding": tmp_path / "e.csv"}
    for path, kept in zip(own.values(), (regressor, model_file)):
        path.write_bytes(kept.read_bytes())
    output = ["-o", tmp_path / "out.csv"] if option == "--rejects" else []
    for path in own.values():
        command = ["predict", own["property"], source, *output, option, path, "--model", own["embedding"], "--overwrite"]
        assert main([*map(str, command)]) == 2
        assert f"{path} is also an input" in capsys.readouterr().err
    assert [path.read_bytes() for path in own.values()] == [regressor.read_bytes(), model_file.read_bytes()]


def test_labels_and_their_types(tmp_path: Path, source: Path) -> None:
    labels = pd.DataFrame({"text": LABELS, "number": np.where(VALUES > 2, 1, 0)})
    model = PropertyModel("classification", features="morgan64", head="logistic", folds=2).fit(SMILES, labels)
    model.save(tmp_path / "c.model")
    assert main(["predict", str(tmp_path / "c.model"), str(source), "-o", str(tmp_path / "out.parquet")]) == 0
    table, expected = pd.read_parquet(tmp_path / "out.parquet", dtype_backend="pyarrow"), model.predict_table(ROWS)
    assert list(table)[2:] == list(expected.columns[1:])
    for column in ("text", "number", "text_set", "number_set"):
        assert table[column].tolist()[::2] == expected[column].tolist()[::2]
    assert str(table["number"].dtype) == "int64[pyarrow]" and table["number"].isna().tolist() == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    np.testing.assert_allclose(table["number_p_1"].dropna(), expected["number_p_1"].dropna())
    assert table["embedding_distance"].isna().all(), "there is no embedding"


def test_molecules_are_standardised_as_in_the_fit(tmp_path: Path) -> None:
    PropertyModel(features="morgan64", head="ridge", folds=2, standardise="desalt,neutralise").fit(SMILES, VALUES).save(
        tmp_path / "m"
    )
    (tmp_path / "in.smi").write_text("CC(=O)[O-].[Na+] salt\nCC(=O)O acid\n")
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "in.smi"), "-o", str(tmp_path / "out.csv")]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["target"][0] == table["target"][1] and list(table["tanimoto"]) == [1, 1]


def test_errors(tmp_path: Path, source: Path, regressor: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken.csv").write_text("smiles,logS\nC,1\n")
    (tmp_path / "empty.csv").write_text("smiles\n")
    (tmp_path / "cut.model").write_bytes(regressor.read_bytes()[: regressor.stat().st_size // 2])
    before = sorted(tmp_path.iterdir())
    known = ("--model", model_file)
    for arguments, message in (
        ((regressor, source, *known, "--on-invalid", "raise"), "in.csv, line 3: the SMILES ('C1CC') could not be parsed"),
        ((regressor, tmp_path / "taken.csv", *known), "names of new columns: 'logS'. Pass --prefix TEXT"),
        ((regressor, tmp_path / "empty.csv", *known), "empty.csv holds no rows"),
        ((regressor, source), "Pass its file as --model FILE"),
        ((regressor, source, "--model", DEFAULT), "was fitted on a different embedding"),
        ((tmp_path / "cut.model", source, *known), "cut.model"),
        ((source, source, *known), "in.csv is not"),
    ):
        assert main(["predict", *map(str, arguments), "-o", str(tmp_path / "out.csv")]) == 2, message
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert (
        main(["predict", *map(str, (regressor, tmp_path / "taken.csv", *known)), "-o", str(tmp_path / "out.csv"), "--prefix", "p_"])
        == 0
    )
    assert {"logS", "p_logS", "p_reason"} <= set(pd.read_csv(tmp_path / "out.csv"))
