"""What all commands that generate or score molecules have in common: inputs, outputs, warnings."""

from __future__ import annotations

import gzip
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.inference import CMIMModel
from nemo_cmim.streaming.repeats import repeated_warnings_once
from nemo_cmim.tables.rows import MoleculeTable

pytestmark = pytest.mark.filterwarnings("ignore:.*had not ended", "ignore:.*rows without a SMILES")
COMMANDS = {
    "decode": ["decode", "LATENTS"],
    "sample": ["sample", "TABLE", "--seed", "1"],
    "sample from nothing": ["sample", "-n", "4", "--seed", "1"],
    "interpolate": ["interpolate", "TABLE", "--from", "smiles", "--to", "other", "--steps", "2"],
    "interpolate two": ["interpolate", "CCO", "CCN", "--steps", "2"],
    "optimize": ["optimize", "TABLE", "--seed", "1", "-n", "1", "--evaluations", "40", "--population", "20"],
    "score": ["score", "TABLE"],
}


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, tmp_path: Path, model_file: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "table.csv").write_text("smiles,other,id\nCCO,CCN,1\nCCC,CCF,2\n")
    np.save(tmp_path / "in" / "latents.npy", np.random.default_rng(0).standard_normal((2, 16)))
    places = {"TABLE": str(tmp_path / "in" / "table.csv"), "LATENTS": str(tmp_path / "in" / "latents.npy")}
    return [*(places.get(word, word) for word in COMMANDS[request.param]), "--model", str(model_file)]


def test_what_exists_is_kept_unless_overwrite_is_given(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    assert main([*command, "-o", str(out)]) == 0
    written = out.read_bytes()
    assert len(written.splitlines()) > 2
    out.write_text("mine")
    capsys.readouterr()
    assert main([*command, "-o", str(out)]) == 2
    assert "already exists. Name a different file, or pass --overwrite to replace it." in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*command, "-o", str(out), "--overwrite"]) == 0
    assert out.read_bytes() == written and sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.csv"]


@pytest.mark.parametrize("name", ["out.csv.gz", "out.parquet", "-"])
def test_formats_hold_the_same_rows(
    command: list[str], tmp_path: Path, name: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*command, "-o", str(tmp_path / "out.csv")]) == 0
    capfdbinary.readouterr()
    assert main([*command, "-o", name if name == "-" else str(tmp_path / name)]) == 0
    expected = (tmp_path / "out.csv").read_bytes()
    if name == "-":
        assert capfdbinary.readouterr().out == expected
    elif name == "out.csv.gz":
        assert gzip.decompress((tmp_path / name).read_bytes()) == expected
    else:
        table = pd.read_parquet(tmp_path / name)
        dtypes = {column: str for column in ("id",) if column in table}
        pd.testing.assert_frame_equal(
            table, pd.read_csv(io.BytesIO(expected), dtype=dtypes, keep_default_na=False), check_dtype=False, rtol=1e-6
        )


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "score"], indirect=True)
def test_smi(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "-o", str(tmp_path / "out.csv")]) == 0
    assert main([*command, "-o", str(tmp_path / "out.smi")]) == 0
    table = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    column = "smiles" if command[0] == "decode" else "generated"
    names = table[next((name for name in ("id", "sample", "step") if name in table), column)]
    expected = [(smiles, "" if command[0] == "decode" else name) for smiles, name in zip(table[column], names) if smiles]
    lines = (tmp_path / "out.smi").read_text().splitlines()
    assert lines == [f"{smiles} {name}" if name else smiles for smiles, name in expected]
    with MoleculeTable(tmp_path / "out.smi") as read:
        assert [cell for block in read.blocks(100) for cell in block.smiles] == [smiles for smiles, _ in expected]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no/out.csv", "there is no folder"),
        ("in", "is a folder"),
        ("x" * 300 + ".csv", "cannot be written"),
        ("out.txt", "rows are written as .csv"),
        ("out", "rows are written as .csv"),
    ],
)
def test_an_output_that_cannot_be_written_is_an_early_error(
    command: list[str], tmp_path: Path, place: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "-o", str(tmp_path / place), "--overwrite"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("command", ["decode", "sample", "interpolate", "optimize", "score"], indirect=True)
def test_an_input_is_not_replaced(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in" / "table.csv"
    if command[0] == "decode":
        (tmp_path / "in" / "latents.npy").rename(source)
        command = ["decode", str(source), *command[2:]]
    before = source.read_bytes()
    for arguments in (["-o", str(source)], ["-o", str(tmp_path / "out.csv"), "--rejects", str(source)]):
        assert main([*command, *arguments, "--overwrite"]) == 2
        assert "is also an input. Name a different file." in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "out.csv"), "--rejects", str(tmp_path / "out.csv")]) == 2
    assert "is also another output" in capsys.readouterr().err
    assert source.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("command", ["sample", "optimize", "score"], indirect=True)
def test_all_inputs_of_the_reader(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [command[0]], command[2:]

    def run(source: object, *options: str) -> pd.DataFrame:
        assert main([*before[0], str(source), *before[1], *options, "-o", str(tmp_path / "out.csv"), "--overwrite"]) == 0
        return pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)

    expected = run(tmp_path / "in" / "table.csv")
    (tmp_path / "semicolons.csv.gz").write_bytes(gzip.compress(b"1;CCO\n2;CCC\n"))
    table = run(tmp_path / "semicolons.csv.gz", "--no-header", "--smiles", "2", "--delimiter", ";")
    assert (
        list(table.iloc[:, 2:]) == list(expected.iloc[:, 3:])
        and table.iloc[:, 2:].to_numpy().tolist() == expected.iloc[:, 3:].to_numpy().tolist()
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress((tmp_path / "in" / "table.csv").read_bytes()))))
    assert run("-").equals(expected)
    assert run((tmp_path / "in" / "table.csv").as_uri()).equals(expected)
    (tmp_path / "in" / "bad.csv").write_text('smiles,note\nCCO,"5 inch\nCCN,x\n')
    assert main([*before[0], str(tmp_path / "in" / "bad.csv"), *before[1], "-o", str(tmp_path / "new.csv")]) == 2
    assert "bad.csv, line 2: a quotation mark opens a cell that is not closed" in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("command", ["sample", "interpolate", "score"], indirect=True)
def test_a_column_that_csv_cannot_hold_is_refused_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"smiles": ["CCO"], "other": ["CCN"], "id": [[1, 2]]}).to_parquet(tmp_path / "lists.parquet")
    lists = [command[0], str(tmp_path / "lists.parquet"), *command[2:]]
    assert main([*lists, "-o", str(tmp_path / "out.parquet")]) == 0
    assert all(list(cell) == [1, 2] for cell in pd.read_parquet(tmp_path / "out.parquet")["id"])

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    for name in ("sample", "interpolate_pairs", "log_likelihood"):
        monkeypatch.setattr(CMIMModel, name, fail)
    assert main([*lists, "-o", str(tmp_path / "out.csv")]) == 2
    assert "The column 'id' holds list" in capsys.readouterr().err and not (tmp_path / "out.csv").exists()


def test_a_name_with_a_line_end_is_not_written_to_smi(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text('smiles,id\nCCO,"two\nlines"\n')
    command = ["interpolate", str(tmp_path / "in.csv"), "--from", "smiles", "--to", "smiles", "--model", str(model_file)]
    assert main([*command, "-o", str(tmp_path / "out.smi")]) == 2
    assert "The name 'two\\nlines' contains a line end" in capsys.readouterr().err and not (tmp_path / "out.smi").exists()


def test_rows_that_smi_cannot_hold_are_reported(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["C", "", "CC", ""]
    monkeypatch.setattr(CMIMModel, "interpolate", lambda *_, **__: texts)
    monkeypatch.setattr(CMIMModel, "interpolate_pairs", lambda *_, **__: [texts])
    monkeypatch.setattr(CMIMModel, "sample", lambda *_, smiles=None, **__: texts if smiles is None else [texts, None])
    (tmp_path / "in.csv").write_text("smiles,id\nCCO,a\nC1CC,b\n")
    source = str(tmp_path / "in.csv")
    for command, count in (
        (["interpolate", "C", "N"], 2),
        (["sample", "-n", "4"], 2),
        (["interpolate", source, "--from", "smiles", "--to", "smiles", "--on-invalid", "nan"], 3),
        (["sample", source, "-n", "4", "--on-invalid", "nan"], 3),
    ):
        with pytest.warns(UserWarning, match=rf"out.smi does not contain {count} rows without a SMILES"):
            assert main([*command, "--model", str(model_file), "-o", str(tmp_path / "out.smi"), "--overwrite"]) == 0
        assert [line.split()[0] for line in (tmp_path / "out.smi").read_text().splitlines()] == ["C", "CC"]


def test_names_in_smi_files(tmp_path: Path, model_file: Path) -> None:
    content = {"smiles": ["CCO", "CCC"], "mw": [1, 2], "zinc_id": ["Z 1", ""], "Name": ["a  b", "ü"]}
    for columns, names in (("mw zinc_id Name", ["a  b", "ü"]), ("mw zinc_id", ["Z 1", ""]), ("mw", ["CCO", "CCC"])):
        pd.DataFrame({key: content[key] for key in ["smiles", *columns.split()]}).to_csv(tmp_path / "in.csv", index=False)
        command = ["interpolate", str(tmp_path / "in.csv"), "--from", "smiles", "--to", "smiles", "--steps", "2"]
        assert main([*command, "--model", str(model_file), "-o", str(tmp_path / "out.smi"), "--overwrite"]) == 0
        lines = [line.split(" ", 1) for line in (tmp_path / "out.smi").read_text().splitlines()]
        assert ["".join(line[1:]) for line in lines] == [name for name in names for _ in range(2)]


def test_repeated_warnings_are_shown_once_and_counted() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with repeated_warnings_once():
            for number in (1, 20, 3):
                warnings.warn(f"{number} of 512 were truncated.", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
        warnings.warn("after", stacklevel=1)
    assert [str(one.message) for one in caught] == [
        "1 of 512 were truncated.",
        "something else",
        "This kind of warning came 3 times, last: 3 of 512 were truncated.",
        "after",
    ]
