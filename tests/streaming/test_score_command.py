"""`nemo-cmim score`: the log-likelihood of each row of a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.inference import CMIMModel
from nemo_cmim.streaming import rows

SMILES = ["OCC", "c1ccccc1O", "CC(=O)N", "CCO"]


@pytest.fixture
def run(model_file: Path):
    def run(*arguments: object) -> int:
        return main(["score", *map(str, arguments), "--model", str(model_file)])

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pd.DataFrame({"id": ["007", "", "a b", "x"], "Smiles": SMILES}).to_csv(tmp_path / "in.csv", index=False)
    return tmp_path / "in.csv"


@pytest.mark.parametrize("size", [1000, 3])
@pytest.mark.parametrize("given", [None, "CCN"])
def test_log_p_is_that_of_the_model(
    tmp_path: Path, source: Path, run, model: CMIMModel, given: str | None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", size)
    assert run(source, "-o", tmp_path / "out.csv", *(["--given", given] if given else [])) == 0
    table = pd.read_csv(tmp_path / "out.csv", dtype={"id": str}, keep_default_na=False)
    assert list(table) == ["id", "Smiles", "log_p", "tokens"]
    assert list(table["id"]) == ["007", "", "a b", "x"] and list(table["Smiles"]) == SMILES
    np.testing.assert_allclose(table["log_p"], model.log_likelihood(SMILES, given), rtol=1e-5)
    assert list(table["tokens"]) == [3, 9, 7, 3], "of the canonical SMILES"
    assert table["log_p"][0] == pytest.approx(table["log_p"][3]), "of the molecule, not of its SMILES"


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_terms_of_the_tokens(tmp_path: Path, source: Path, run, model: CMIMModel, out: str) -> None:
    assert run(source, "-o", tmp_path / out, "--per-token") == 0
    table = pd.read_csv(tmp_path / out) if out == "out.csv" else pd.read_parquet(tmp_path / out)
    for cell, terms, total in zip(table["log_p_per_token"], model.log_likelihood(SMILES, per_token=True), table["log_p"]):
        np.testing.assert_allclose(json.loads(cell), terms, rtol=1e-4, atol=1e-6)
        assert sum(json.loads(cell)) == pytest.approx(total, rel=1e-5)


def test_invalid_rows(tmp_path: Path, run, model: CMIMModel, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.smi").write_text("CCO a\nC1CC b\n\nCCN\n" + "C" * 99 + " long\n")
    assert run(tmp_path / "in.smi", "-o", tmp_path / "out.parquet") == 2
    assert (
        "in.smi, line 2: the SMILES ('C1CC') could not be parsed: unclosed ring. Pass --on-invalid nan" in capsys.readouterr().err
    )
    command = (tmp_path / "in.smi", "-o", tmp_path / "out.parquet", "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv")
    assert run(*command) == 0
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table["smiles"]) == ["CCO", "C1CC", "", "CCN", "C" * 99]
    assert list(table["log_p"].isna()) == list(table["tokens"].isna()) == [False, True, True, False, True]
    np.testing.assert_allclose(table["log_p"][[0, 3]], model.log_likelihood(["CCO", "CCN"]), rtol=1e-5)
    rejects = pd.read_csv(tmp_path / "bad.csv")
    assert list(rejects["row"]) == [2, 3, 5]
    assert "unclosed ring" in rejects["reason"][0] and rejects["reason"][1] == "empty line" and "99 tokens" in rejects["reason"][2]
    assert "3 rows are invalid and have no result" in capsys.readouterr().err


def test_only_invalid_rows(tmp_path: Path, run) -> None:
    (tmp_path / "in.smi").write_text("C1CC a\n[Fe b\n")
    assert run(tmp_path / "in.smi", "-o", tmp_path / "out.csv", "--on-invalid", "nan") == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["id"]) == ["a", "b"] and table["log_p"].isna().all()


def test_standardise(tmp_path: Path, run, model: CMIMModel) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCC(=O)[O-].[Na+]\n")
    assert run(tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--standardise", "desalt,neutralise") == 0
    assert pd.read_csv(tmp_path / "out.csv")["log_p"][0] == pytest.approx(model.log_likelihood(["CC(=O)O"])[0], rel=1e-5)


def test_errors(tmp_path: Path, source: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken.csv").write_text("smiles,tokens\nC,1\n")
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        (
            (source, "-o", tmp_path / "out.csv", "--given", "C1CC"),
            "--given C1CC cannot be used: the SMILES ('C1CC') could not be parsed",
        ),
        ((source, "-o", tmp_path / "out.smi"), "a .smi file holds only SMILES and names, not the result"),
        ((source, "-o", tmp_path / "out.npy"), "rows are written as .csv, .csv.gz, .parquet, not '.npy'"),
        ((tmp_path / "taken.csv", "-o", tmp_path / "out.csv"), "taken.csv already has a column 'tokens'"),
        ((source, "-o", tmp_path / "out.csv", "--smiles", "x"), "has no column 'x'"),
    ):
        assert run(*arguments) == 2, message
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
