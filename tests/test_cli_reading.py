"""Commands that read files of molecules do so in the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.cli import build_parser, main
from nemo_cmim.downstream import load_csv
from nemo_cmim.inference import list_models, load

CONTENT = "".join(f"{i};{'C' * i}O |&1:1|;{i}.5\n" for i in range(1, 13)) + "13;[CH3:1]O.[Na+].[Cl-] salt;9\n"
OPTIONS = ["--smiles", "2", "--delimiter", ";", "--no-header", "--standardise", "desalt,extras, atom-maps"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text(CONTENT)
    return path


@pytest.mark.parametrize(
    "command",
    ["embed in -o out", "prepare in -o out", "overlap data in", "regress in"]
    + [f"{name} in -o out" for name in ("sample", "optimize", "score")],
)
def test_commands_have_the_same_options(command: str) -> None:
    name = "smiles" if not command.startswith("prepare") else "column"
    parse = build_parser().parse_args
    given = vars(parse([*command.split(), "--smiles", "x", "--delimiter", "|", "--no-header"]))
    assert (given[name], given["delimiter"], given["header"]) == ("x", "|", False)
    assert vars(parse([*command.split(), "--column", "x"]))[name] == "x"
    given = vars(parse(command.split()))
    assert (given[name], given["delimiter"], given["header"]) == (None, None, None)


def test_embed(source: Path, tmp_path: Path) -> None:
    assert main(["embed", str(source), "-o", str(tmp_path / "out.parquet"), "--kind", "mean", *OPTIONS]) == 0
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["smiles"].iloc[-1] == "[CH3:1]O.[Na+].[Cl-] salt", "columns are carried unchanged"
    expected = load(list_models()[0]).embed([*("C" * i + "O" for i in range(1, 13)), "CO"], "mean")
    np.testing.assert_allclose(np.stack(table["embedding"]), expected, rtol=1e-4, atol=1e-5)


def test_embed_names_the_option_that_is_missing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(source), "-o", str(tmp_path / "out.csv"), *OPTIONS[:-2]]) == 2
    printed = capsys.readouterr().err
    assert "in.csv, line 1: " in printed and "followed by a CXSMILES extension" in printed and "--standardise extras" in printed


def test_prepare(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", str(source), "-o", str(tmp_path / "out"), "--processes", "1", "--valid-fraction", "0.1", *OPTIONS]
    assert main(command) == 0
    assert "kept 12 of 13 lines" in (printed := capsys.readouterr().out) and "rejected 1: duplicate" in printed


def test_regress(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["regress", str(source), "--target", "3", "--features", "morgan512", "--heads", "svm", "--seeds", "1", *OPTIONS]
    assert main(command) == 0
    assert "13 rows, 12 distinct molecules" in capsys.readouterr().out
    data = load_csv(source, "2", "3", delimiter=";", header=False, standardise=("extras", "desalt", "atom-maps"))
    assert data.smiles[-1] == "CO" and data.targets[-1] == 9
