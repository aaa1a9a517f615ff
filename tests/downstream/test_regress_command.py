from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import nemo_cmim
from nemo_cmim.cli import main
from nemo_cmim.config import ModelConfig, NetworkConfig
from nemo_cmim.downstream import evaluate, load_csv, named_heads
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer

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
    assert sorted(file.name for file in out.iterdir()) == [
        "manifest.json",
        "parity.png",
        "predictions.csv",
        "report.md",
        "runs.csv",
    ]
    assert len(pd.read_csv(out / "runs.csv")) == 1 * 2 * 2


@pytest.fixture
def model_file(tmp_path):
    """A tiny model with random weights, for molecules of at most 12 tokens."""
    torch.manual_seed(0)
    network = NetworkConfig(hidden_size=8, encoder_layers=1, decoder_layers=1, attention_heads=2, ffn_size=16, max_positions=13)
    checkpoint = ModelFile(ModelConfig(network=network), SmilesTokenizer().vocabulary, CMIMNetwork(network).state_dict())
    write_model_file(tmp_path / "my.nemo", checkpoint)
    return tmp_path / "my.nemo"


def test_embeddings_are_those_of_the_given_model(csv_file, model_file, tmp_path, capsys):
    csv_file.write_text("".join(csv_file.read_text().splitlines(keepends=True)[:-1]))
    columns = ["--smiles", "mol", "--target", "value", "--model", str(model_file)]
    assert main(["regress", str(csv_file), *columns, *TINY, "--features", "mean, informative", "-o", str(tmp_path / "out")]) == 0
    assert "| informative | " in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out" / "runs.csv")
    data = load_csv(csv_file, "mol", "value")
    features = {kind: partial(nemo_cmim.load(model_file).embed, kind=kind) for kind in ("mean", "informative")}
    expected = evaluate(data, features, named_heads(("svm", "mlp"), 20, "cpu"), folds=2, seeds=(0, 1)).runs
    np.testing.assert_allclose(found["rmse"], expected["rmse"], rtol=1e-6)


def test_molecules_that_the_model_does_not_accept_are_invalid_rows(csv_file, model_file, tmp_path, capsys):
    columns = ["--smiles", "mol", "--target", "value", "--model", str(model_file), "--features", "mean,morgan64", "--heads", "svm"]
    arguments = ["regress", str(csv_file), *TINY, *columns, "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "line 13: the SMILES ('CCCCCCCCCCCCO') has 13 tokens, but this model accepts at most 12" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="line 13"):
        assert main([*arguments, "--on-invalid", "drop"]) == 0
    assert pd.read_csv(tmp_path / "out" / "dropped.csv")["line"].tolist() == [13]


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
def test_errors_are_printed_in_one_line(csv_file, capsys, extra, message):
    assert main(["regress", str(csv_file), "--smiles", "mol", "--target", "value", *TINY, *extra]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert error[-1].startswith("nemo-cmim regress: ")
