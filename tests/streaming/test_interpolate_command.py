"""`nemo-cmim interpolate`: two SMILES, or those of each row of a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.inference import CMIMModel
from nemo_cmim.streaming import interpolate

pytestmark = pytest.mark.filterwarnings("ignore:.*had not ended")
PAIRS = [("CCO", "c1ccccc1O"), ("CC(=O)N", "CCC"), ("OCC", "CCO")]


@pytest.fixture
def run(model_file: Path):
    def run(*arguments: object) -> int:
        return main(["interpolate", *map(str, arguments), "--model", str(model_file)])

    return run


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def test_two_smiles(tmp_path: Path, run, model: CMIMModel) -> None:
    assert run("CCO", "c1ccccc1O", "-o", tmp_path / "out.csv", "--steps", 5) == 0
    table = read(tmp_path / "out.csv")
    assert list(table) == ["from", "to", "step", "generated"] and list(table["step"]) == list("12345")
    assert set(table["from"]) == {"CCO"} and set(table["to"]) == {"c1ccccc1O"}
    with pytest.warns(UserWarning, match="had not ended"):
        assert list(table["generated"]) == model.interpolate("CCO", "c1ccccc1O", 5)
        assert [table["generated"][0], table["generated"][4]] == model.reconstruct(["CCO", "c1ccccc1O"])


@pytest.mark.parametrize("options", [(), ("--unique",)])
def test_the_progress_of_two_smiles_ends_at_100(
    tmp_path: Path, run, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("CCO", "CCO", "-o", tmp_path / "out.csv", "--steps", 5, *options) == 0
    found = len(read(tmp_path / "out.csv"))
    assert f"{found:.2f}/{found:.2f}" in (printed := capsys.readouterr().err) and "100%" in printed and " molecules/s" in printed


def test_pairs_of_a_file(tmp_path: Path, run, model: CMIMModel) -> None:
    pd.DataFrame([(*pair, i) for i, pair in enumerate(PAIRS)], columns=["A", "b", "smiles"]).to_csv(
        tmp_path / "in.csv", index=False
    )
    assert run(tmp_path / "in.csv", "--from", "a", "--to", 2, "-o", tmp_path / "out.csv", "--steps", 3, "--max-tokens", 8) == 0
    table = read(tmp_path / "out.csv")
    assert list(table) == ["A", "b", "smiles", "step", "generated"]
    assert [tuple(row) for row in table[["A", "b"]].to_numpy()] == [pair for pair in PAIRS for _ in range(3)]
    assert list(table["smiles"]) == list("000111222") and list(table["step"]) == list("123") * 3
    with pytest.warns(UserWarning, match="had not ended"):
        assert list(table["generated"]) == [text for pair in PAIRS for text in model.interpolate(*pair, 3, max_tokens=8)]


@pytest.mark.parametrize("steps", [2, 3, 300])
def test_pairs_are_decoded_together_in_batches_of_bounded_size(
    tmp_path: Path, run, model: CMIMModel, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    molecules = [f"{'C' * chain}{end}" for chain in range(1, 21) for end in "NOFSI"]
    pairs = list(zip(molecules, reversed(molecules)))
    pd.DataFrame(pairs, columns=["a", "b"]).to_csv(tmp_path / "in.csv", index=False)
    sizes: list[int] = []
    monkeypatch.setattr(CMIMModel, "decode", lambda self, z, **_: sizes.append(len(z)) or list(map(str, z.sum((1, 2)).tolist())))
    monkeypatch.setattr(interpolate, "_MOLECULES_AT_ONCE", 30 * steps)
    assert run(tmp_path / "in.csv", "--from", "a", "--to", "b", "-o", tmp_path / "out.csv", "--steps", steps) == 0
    assert sum(sizes) == 100 * steps and max(sizes) <= max(256, steps)
    assert len(sizes) == {2: 4, 3: 4, 300: 100}[steps], "30 pairs are read at a time"
    table = read(tmp_path / "out.csv")
    assert [tuple(row) for row in table[["a", "b"]].to_numpy()] == [pair for pair in pairs for _ in range(steps)]
    expected = [float(text) for pair in pairs for text in model.interpolate(*pair, steps)]
    np.testing.assert_allclose(table["generated"].astype(float), expected, rtol=1e-4, atol=1e-4)


def test_smi_lines_have_the_name_of_the_row(tmp_path: Path, run) -> None:
    pd.DataFrame({"a": ["CCO", "CCN"], "b": ["CCC", "CCF"], "pair_id": ["p 1", "p2"]}).to_parquet(tmp_path / "in.parquet")
    assert run(tmp_path / "in.parquet", "--from", "a", "--to", "b", "-o", tmp_path / "out.smi", "--steps", 2) == 0
    assert [line.split(" ", 1)[1] for line in (tmp_path / "out.smi").read_text().splitlines()] == ["p 1", "p 1", "p2", "p2"]
    assert run("CCO", "CCC", "-o", tmp_path / "two.smi", "--steps", 3) == 0
    assert [line.split(" ", 1)[1] for line in (tmp_path / "two.smi").read_text().splitlines()] == ["1", "2", "3"]


def test_invalid_rows(tmp_path: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("a,b\nCCO,C1CC\n[Fe,CC\nCC,\nCC,CO\n")
    command = (tmp_path / "in.csv", "--from", "a", "--to", "b", "-o", tmp_path / "out.csv", "--steps", 2)
    assert run(*command) == 2
    assert "in.csv, line 2: column 'b': the SMILES ('C1CC') could not be parsed" in capsys.readouterr().err
    assert run(*command, "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv") == 0
    rejects = pd.read_csv(tmp_path / "bad.csv")
    assert list(rejects["row"]) == [2, 3, 4]
    assert [reason[:11] for reason in rejects["reason"]] == [
        "column 'b':",
        "column 'a':",
        "column 'b':",
    ] and "no SMILES" in rejects["reason"][2]
    table = read(tmp_path / "out.csv")
    assert list(table["step"]) == ["", "", "", "1", "2"] and list(table["b"]) == ["C1CC", "CC", "", "CO", "CO"]


def test_options_are_arguments_of_interpolate(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def stand_in(self: CMIMModel, a: str, b: str, **settings: Any) -> list[str]:
        seen.append({"a": a, "b": b, **settings})
        return [a]

    def stand_in_of_pairs(self: CMIMModel, pairs: list[tuple[str, str]], progress: object, **settings: Any) -> list[list[str]]:
        return [stand_in(self, *pair, **settings) for pair in pairs]

    monkeypatch.setattr(CMIMModel, "interpolate", stand_in)
    monkeypatch.setattr(CMIMModel, "interpolate_pairs", stand_in_of_pairs)
    assert run("C", "N", "-o", tmp_path / "a.csv") == 0
    options = shlex.split("--steps 7 --spherical --unique --max-tokens 9 --standardise desalt")
    assert run("C", "N", "-o", tmp_path / "b.csv", *options) == 0
    (tmp_path / "in.csv").write_text("a,b\nC,N\n")
    assert run(tmp_path / "in.csv", "--from", "a", "--to", "b", "-o", tmp_path / "c.csv", *options) == 0
    settings = {"steps": 7, "spherical": True, "unique": True, "max_tokens": 9, "standardise": ("desalt",)}
    assert seen == [{"a": "C", "b": "N"}, {"a": "C", "b": "N", **settings}, {"a": "C", "b": "N", **settings}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CCO", "C1CC"), "The SMILES ('C1CC') could not be parsed: unclosed ring."),
        (
            ("g.CSV.gz", "CC"),
            "g.CSV.gz is a file, not a SMILES. Pass two SMILES, or only the file with --from COLUMN and --to COLUMN.",
        ),
        (("CC", "g.smi"), "g.smi is a file, not a SMILES"),
        (("CC", "CO", "--max-tokens", "0"), "--max-tokens must be at least 1, found 0"),
        (("", "CC"), "The SMILES is empty"),
        (("CCO",), "needs two SMILES, or one file with --from COLUMN and --to COLUMN"),
        (("IN", "--from", "a"), "needs two SMILES, or one file with --from COLUMN and --to COLUMN"),
        (("CCO", "CC", "--from", "a", "--to", "b"), "needs two SMILES, or one file with --from COLUMN and --to COLUMN"),
        (("CCO", "CC", "--rejects", "x"), "--rejects has no effect on two SMILES"),
        (("CCO", "CC", "--steps", "1"), "--steps must be at least 2, found 1"),
        (("IN", "--from", "a", "--to", "b", "--steps", "1"), "--steps must be at least 2, found 1"),
        (("IN", "--from", "x", "--to", "b"), "has no column 'x'; its first line is 'a', 'b'. Name the SMILES column with --from."),
        (("IN", "--from", "a", "--to", "x"), "has no column 'x'; its columns are 'a', 'b'"),
        (("NUMBERS", "--from", "a", "--to", "b"), "the column 'b' holds int64, not text"),
    ],
)
def test_errors(tmp_path: Path, run, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("a,b\nCCO,CC\n")
    pd.DataFrame({"a": ["C"], "b": [1]}).to_parquet(tmp_path / "numbers.parquet")
    places = {"IN": tmp_path / "in.csv", "NUMBERS": tmp_path / "numbers.parquet"}
    assert run(*(places.get(word, word) for word in arguments), "-o", tmp_path / "out.csv") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.csv").exists()
