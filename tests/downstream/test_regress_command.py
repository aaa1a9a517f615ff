from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nemo_cmim
from nemo_cmim.cli import main

TINY = ["--features", "morgan64", "--mlp-steps", "20", "--folds", "2", "--seeds", "2", "--device", "cpu"]


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "chains.csv"
    path.write_text("mol,value\n" + "".join(f"{'C' * n}O,{n}\n" for n in range(1, 13)))
    return path


def test_prints_a_table_and_writes_the_report(csv_file, tmp_path, capsys):
    out = tmp_path / "out"
    columns = ["--smiles", "mol", "--target", "value", "--unit", "atoms"]
    assert main(["regress", str(csv_file), *columns, *TINY, "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert "| features | svm | mlp |" in printed.out
    assert "| morgan64 | " in printed.out
    assert "RMSE in atoms" in printed.out
    assert "100%" in printed.err
    assert sorted(file.name for file in out.iterdir()) == ["parity.png", "predictions.csv", "report.md", "runs.csv"]
    assert len(pd.read_csv(out / "runs.csv")) == 1 * 2 * 2


def test_embeddings_come_from_the_model_asked_for(csv_file, capsys, monkeypatch):
    asked = []

    def embed(smiles, model, kind, device):
        asked.append((model, kind, device))
        return np.array([[len(s), kind == "mean"] for s in smiles], dtype=np.float32)

    monkeypatch.setattr(nemo_cmim, "embed", embed, raising=False)
    columns = ["--smiles", "mol", "--target", "value", "--model", "my.nemo"]
    assert main(["regress", str(csv_file), *columns, *TINY, "--features", "mean, informative"]) == 0
    assert asked == [("my.nemo", "mean", "cpu"), ("my.nemo", "informative", "cpu")]
    assert "| informative | " in capsys.readouterr().out


def test_dropped_rows_are_listed(csv_file, tmp_path, capsys):
    csv_file.write_text(csv_file.read_text() + "C1CC,3\n")
    columns = ["--smiles", "mol", "--target", "value"]
    arguments = ["regress", str(csv_file), *columns, *TINY, "--heads", "svm", "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "line 14: " in error
    assert "'C1CC'" in error
    with pytest.warns(UserWarning, match="line 14"):
        assert main([*arguments, "--on-invalid", "drop"]) == 0
    assert "1 invalid rows of the file were left out" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "dropped.csv")["line"].tolist() == [14]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--smiles", "smi"], "no column 'smi'"),
        (["--features", "morgan64,typo"], "Unknown features 'typo'"),
        (["--heads", "forest"], "Unknown head 'forest'"),
        (["--folds", "100"], "too few for 100 folds"),
        (["--seeds", "0"], "seeds is empty"),
    ],
)
def test_mistakes_are_told_in_one_line(csv_file, capsys, extra, message):
    assert main(["regress", str(csv_file), "--smiles", "mol", "--target", "value", *TINY, *extra]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert error[-1].startswith("nemo-cmim regress: ")
