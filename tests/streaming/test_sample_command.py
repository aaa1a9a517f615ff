"""`nemo-cmim sample`: molecules around each row of a file, or from the density."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.inference import CMIMModel
from nemo_cmim.streaming import sample

pytestmark = pytest.mark.filterwarnings("ignore:.*had not ended", "ignore:.*rows without a SMILES")
ALWAYS = {"on_invalid": "explain", "first_index": 0}
SMILES = ["CCO", "c1ccccc1O", "CC(=O)N"]


@pytest.fixture
def run(model_file: Path):
    def run(*arguments: object) -> int:
        return main(["sample", *map(str, arguments), "--model", str(model_file)])

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in.smi").write_text("".join(f"{smiles} name {i}\n" for i, smiles in enumerate(SMILES)))
    return tmp_path / "in.smi"


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def test_n_around_each_molecule(tmp_path: Path, source: Path, run, model: CMIMModel) -> None:
    assert run(source, "-o", tmp_path / "out.csv", "-n", 4, "--scaled-radius", 2, "--seed", 3, "--max-tokens", 9) == 0
    table = read(tmp_path / "out.csv")
    assert list(table) == ["smiles", "id", "sample", "generated"]
    assert list(table["smiles"]) == [smiles for smiles in SMILES for _ in range(4)]
    assert list(table["id"]) == [f"name {i}" for i in range(3) for _ in range(4)] and list(table["sample"]) == list("1234") * 3
    with pytest.warns(UserWarning, match="had not ended"):
        found = model.sample(4, smiles=SMILES, scaled_radius=2.0, seed=3, max_tokens=9)
    assert list(table["generated"]) == [text for texts in found for text in texts]


def test_samples_depend_on_the_seed_and_the_row_not_on_the_size_of_blocks(
    tmp_path: Path, run, model: CMIMModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.smi").write_text("CCO\nC1CC\n" + "CCO\n" * 5)
    command = (tmp_path / "in.smi", "-n", 4, "--scaled-radius", 3, "--on-invalid", "nan")
    written = []
    for rows in (7, 2, 1):
        monkeypatch.setattr(sample, "DECODED_MOLECULES", 4 * rows)
        assert run(*command, "-o", tmp_path / f"{rows}.csv", "--seed", 5) == 0
        written.append((tmp_path / f"{rows}.csv").read_text())
    assert written[0] == written[1] == written[2]
    found = list(read(tmp_path / "2.csv")["generated"])
    with pytest.warns(UserWarning, match="had not ended"):
        first, *_, last = model.sample(4, smiles=["CCO"] * 7, scaled_radius=3.0, seed=5)
    assert found[:4] == first != last == found[-4:], "each row has its own draws"
    assert run(*command, "-o", tmp_path / "other.csv", "--seed", 6) == 0
    assert (tmp_path / "other.csv").read_text() != written[0]


@pytest.mark.parametrize("out", ["out.csv", "out.parquet", "out.smi"])
def test_invalid_rows(tmp_path: Path, run, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("name,smiles\na,CCO\nb,C1CC\nc,\nd,CCN\n")
    command = (tmp_path / "in.csv", "-o", tmp_path / out, "-n", 2, "--scaled-radius", 0.1, "--seed", 1)
    assert run(*command) == 2
    assert "in.csv, line 3: the SMILES ('C1CC') could not be parsed" in capsys.readouterr().err and not (tmp_path / out).exists()
    assert run(*command, "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv") == 0
    printed = capsys.readouterr().err
    assert "2 rows are invalid and have no result" in printed and "in.csv, line 4: no SMILES" in printed
    assert list(pd.read_csv(tmp_path / "bad.csv")["row"]) == [3, 4]
    if out == "out.smi":
        lines = (tmp_path / out).read_text().splitlines()
        assert [line.split(" ")[1] for line in lines] == [
            "a",
            "a",
            "d",
            "d",
        ]
        return
    table = read(tmp_path / out) if out == "out.csv" else pd.read_parquet(tmp_path / out)
    assert list(table["name"]) == ["a", "a", "b", "c", "d", "d"]
    assert list(table["generated"].fillna("") == "") == [False, False, True, True, False, False]


def test_sampling_from_nothing(tmp_path: Path, run, model: CMIMModel, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("-n", 20, "--seed", 3, "-o", "-") == 0
    table = pd.read_csv(io.BytesIO(capfdbinary.readouterr().out), keep_default_na=False)
    with pytest.warns(UserWarning, match="had not ended"):
        assert list(table["generated"]) == model.sample(20, seed=3)
    assert list(table) == ["sample", "generated"] and list(table["sample"]) == list(range(1, 21))


def test_many_blocks_from_nothing(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAMPLES_AT_ONCE", 8)
    for out in ("a.csv", "b.csv"):
        assert run("-n", 20, "--seed", 3, "-o", tmp_path / out) == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    table = read(tmp_path / "a.csv")
    assert list(table["sample"]) == [str(i) for i in range(1, 21)]
    assert list(table["generated"][:8]) != list(table["generated"][8:16]), "blocks have different seeds"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of `CMIMModel.sample`, which is replaced: it gives methane, ethane and so on, in the order of its calls."""
    seen: list[dict[str, Any]] = []

    def stand_in(self: CMIMModel, n: int = 1, *, smiles: list[str] | None = None, **settings: Any) -> list[Any]:
        first = sum(call["n"] for call in seen) % 7
        seen.append({"n": n, "smiles": smiles, **settings})
        texts = ["C" * (1 + (first + i) % 7) for i in range(n)]
        return texts if smiles is None else [texts[: len(one)] for one in smiles]

    monkeypatch.setattr(CMIMModel, "sample", stand_in)
    return seen


def test_options_are_arguments_of_sample(tmp_path: Path, source: Path, run, calls: list[dict[str, Any]]) -> None:
    assert run(source, "-o", tmp_path / "a.csv") == 0
    assert calls.pop() == {"n": 1, "smiles": SMILES, "seed": None, "standardise": (), **ALWAYS}, "others are left to the model"
    options = shlex.split(
        "-n 3 --scaled-radius 0 --unit absolute --beam-size 1 --temperature 0.7 --top-k 5 --top-p 0.9 --grammar --must-contain c1ccccc1 "
        "--must-contain N --unique --valid-only --attempts 4 --seed 0 --max-tokens 30 --standardise desalt"
    )
    assert run(source, "-o", tmp_path / "b.csv", *options) == 0
    assert calls.pop() == {
        "n": 3, "smiles": SMILES, "scaled_radius": 0.0, "unit": "absolute", "beam_size": 1, "temperature": 0.7, "top_k": 5, "top_p": 0.9,
        "grammar": True, "must_contain": ["c1ccccc1", "N"], "unique": True, "valid_only": True, "attempts": 4, "seed": 0, "max_tokens": 30,
        "standardise": ("desalt",), **ALWAYS,
    }  # fmt: skip
    assert run("-o", tmp_path / "c.csv", "-n", 2, "--density", "normal") == 0
    assert calls.pop() == {"n": 2, "smiles": None, "seed": None, "density": "normal", "first_index": 0}


def test_a_molecule_without_samples_is_a_row_and_is_reported(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(self: CMIMModel, n: int = 1, *, smiles: list[str], **settings: Any) -> list[list[str]]:
        return [[] if one == "CCN" else ["C"] for one in smiles]

    monkeypatch.setattr(CMIMModel, "sample", nothing)
    (tmp_path / "in.csv").write_text("smiles,id\nCCO,1\nCCN,2\n")
    command = (tmp_path / "in.csv", "-o", tmp_path / "out.csv", "-n", 2, "--valid-only", "--rejects", tmp_path / "bad.csv")
    assert run(*command) == 0
    assert "1 rows have no result" in (printed := capsys.readouterr().err) and "in.csv, line 3: no sample fulfils" in printed
    assert read(tmp_path / "out.csv").to_numpy().tolist() == [["CCO", "1", "1", "C"], ["CCN", "2", "", ""]]
    assert list(pd.read_csv(tmp_path / "bad.csv")["smiles"]) == ["CCN"]


def test_unique_samples_from_nothing_are_unique_over_all_blocks(
    tmp_path: Path, run, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLES_AT_ONCE", 3)
    assert run("-o", tmp_path / "a.csv", "-n", 6, "--unique") == 0
    assert sorted(read(tmp_path / "a.csv")["generated"], key=len) == ["C" * i for i in range(1, 7)]
    assert list(read(tmp_path / "a.csv")["sample"]) == list("123456")
    calls.clear()
    message = "Only 7 of 9 molecules met the conditions: 27 drawn, 27 valid, 7 kept. Allow more than attempts=3"
    with pytest.warns(UserWarning, match=message):
        assert run("-o", tmp_path / "b.csv", "-n", 9, "--unique", "--attempts", 3) == 0
    assert len(read(tmp_path / "b.csv")) == 7
    assert sum(call["n"] for call in calls) == 27, "attempts are for the whole call"
    assert len({call["first_index"] for call in calls}) == len(calls) and not any("attempts" in call for call in calls)


def test_samples_from_nothing_that_meet_conditions(
    tmp_path: Path, run, calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-o", tmp_path / "a.csv", "-n", 12, "--must-contain", "CCC", "--valid-only") == 0
    assert len(texts := read(tmp_path / "a.csv")["generated"]) == 12 and min(map(len, texts)) == 3
    assert "100%" in (printed := capsys.readouterr().err) and "12.0/12.0" in printed
    with pytest.warns(UserWarning, match="Only 0 of 6 molecules met the conditions: 30 drawn, 30 valid, 0 kept"):
        assert run("-o", tmp_path / "b.csv", "-n", 6, "--must-contain", "N", "--attempts", 5) == 0
    for option in ("--must-contain", "c1cc"), ("--attempts", 0):
        assert run("-o", tmp_path / "c.csv", *option) == 2
        assert f"{option[0]} must be" in capsys.readouterr().err and not (tmp_path / "c.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("IN", "-n", 0), "-n must be at least 1, found 0"),
        (("-n", 0), "-n must be at least 1, found 0"),
        (("IN", "--scaled-radius", -1), "--scaled-radius must be a finite number of at least 0, found -1"),
        (("IN", "--scaled-radius", "nan"), "--scaled-radius must be a finite number of at least 0, found nan"),
        (("IN", "--seed", -1), "--seed must be at least 0, found -1"),
        (("CCO",), "CCO is missing; check the path. To pass a SMILES, write it to a file or to standard input."),
        (("IN", "--attempts", 0), "--attempts must be at least 1, found 0"),
        (("IN", "--scaled-radius", 1e30), "--scaled-radius 1e+30 with --unit spread gives latents of up to"),
        (("IN", "--top-p", 0.5), "--top-p 0.5 has no effect without a temperature"),
        (
            ("IN", "--must-contain", "N", "--must-contain", "c1cc"),
            "--must-contain must be SMARTS, for example 'c1ccccc1', but RDKit",
        ),
        (("--must-contain", "("), "--must-contain must be SMARTS"),
        (("--scaled-radius", 1), "--scaled-radius has no effect without INPUT"),
        (("--no-header",), "--no-header has no effect without INPUT"),
        (("--smiles", "x"), "--smiles has no effect without INPUT"),
        (("--on-invalid", "nan"), "--on-invalid has no effect without INPUT"),
        (("IN", "--density", "normal"), "--density has no effect with INPUT"),
        (("IN", "--standardise", "salt"), "--standardise salt: this step is unknown"),
    ],
)
def test_wrong_options(
    tmp_path: Path, source: Path, run, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(source if option == "IN" else option for option in options), "-o", tmp_path / "out.csv") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.csv").exists()
