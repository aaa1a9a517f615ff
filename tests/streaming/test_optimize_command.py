"""`nemo-cmim optimize`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.inputs import EXPLAIN
from nemo_cmim.optimization import SearchResult
from nemo_cmim.streaming import optimize
from nemo_cmim.streaming.optimize import optimize_file, parse_objective
from nemo_cmim.streaming.rows import StreamOptions

COLUMNS = ["seed", "seed_score", "generated", "score", "similarity", "step"]


class Calls(list[dict[str, Any]]):
    """Arguments of the calls of `CMIMModel.optimize`."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    real, calls = CMIMModel.optimize, Calls()

    def optimize(model: CMIMModel, smiles: Any, objective: Any, **settings: Any) -> list[SearchResult | None]:
        calls.append({"smiles": list(smiles), "objective": objective, **settings})
        return real(model, smiles, objective, **settings)

    monkeypatch.setattr(CMIMModel, "optimize", optimize)
    return calls


@pytest.fixture
def run(model_file: Path):
    def run(*arguments: object) -> int:
        small = () if {"--evaluations", "--population"} & set(map(str, arguments)) else ("--evaluations", 60, "--population", 20)
        return main(["optimize", *map(str, (*arguments, *small)), "--model", str(model_file)])

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text("id,smiles\n007,OCC\nb,c1ccccc1\nc,CCN\n")
    return tmp_path / "in.csv"


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_columns(tmp_path: Path, source: Path, run, model: CMIMModel, out: str) -> None:
    assert run(source, "-o", tmp_path / out, "-n", 3, "--seed", 5) == 0
    table = pd.read_csv(tmp_path / out, dtype={"id": str}) if out == "out.csv" else pd.read_parquet(tmp_path / out)
    assert list(table) == ["id", "smiles", *COLUMNS]
    found = model.optimize(["OCC", "c1ccccc1", "CCN"], n=3, seed=5, evaluations=60, population=20)
    rows = [(one.seed, one.seed_score, *candidate) for one in found if one for candidate in one.molecules]
    assert len(rows) > 3 and [tuple(row) for row in table[COLUMNS].dropna().itertuples(index=False)] == rows
    assert list(dict.fromkeys(table["id"])) == ["007", "b", "c"] and "OCC" in set(table["smiles"]) and "CCO" in set(table["seed"])


def test_options_are_arguments_of_optimize(tmp_path: Path, source: Path, run, calls: Calls) -> None:
    assert run(source, "-o", tmp_path / "a.csv") == 0
    options = shlex.split(
        "--objective QED:1,plogP:-0.1 --minimize --algorithm none --evaluations 50 --population 20 --scaled-radius 0.1 --unit absolute "
        "--min-similarity 0.4 --must-contain c1ccccc1 --must-contain N -n 2 --temperature 0.8 --seed 0 --standardise desalt,neutralise"
    )
    assert run(source, "-o", tmp_path / "b.csv", *options) == 0
    first, second = ({name: value for name, value in call.items() if name != "progress"} for call in calls)
    common = {"smiles": ["OCC", "c1ccccc1", "CCN"], "on_invalid": EXPLAIN, "first_index": 0, "population": 20}
    assert first == {**common, "objective": "QED", "seed": None, "standardise": (), "evaluations": 60}
    assert second == {
        **common, "objective": {"QED": 1.0, "plogP": -0.1}, "maximize": False, "algorithm": "none", "evaluations": 50,
        "scaled_radius": 0.1, "unit": "absolute", "min_similarity": 0.4, "must_contain": ["c1ccccc1", "N"], "n": 2, "temperature": 0.8,
        "seed": 0, "standardise": ("desalt", "neutralise"),
    }  # fmt: skip


def test_blocks_give_the_same_molecules(
    tmp_path: Path, source: Path, model: CMIMModel, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"population": 20, "evaluations": 40, "seed": 4, "n": 2}
    optimize_file(model, source, tmp_path / "one.csv", **settings)
    monkeypatch.setattr(optimize, "DECODED_MOLECULES", 40)
    seen: list[tuple[int, float | None]] = []
    done, has_pictures = optimize_file(
        model, source, tmp_path / "two.csv", options=StreamOptions(progress=lambda *now: seen.append(now)), **settings
    )
    assert done.rows == 3 and not has_pictures
    assert [call["smiles"] for call in calls] == [["OCC", "c1ccccc1", "CCN"], ["OCC", "c1ccccc1"], ["CCN"]]
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    assert seen == sorted(seen) and seen[-1] == (3, 1.0)


def test_rows_without_result(tmp_path: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCF\nC1CC\nCCN\n")
    command = (
        tmp_path / "in.csv",
        "-o",
        tmp_path / "out.csv",
        "--on-invalid",
        "nan",
        "--rejects",
        tmp_path / "bad.csv",
        "--seed",
        0,
    )
    assert run(*command, "--min-similarity", 1, "--plot", tmp_path / "plot.png") == 0
    printed = capsys.readouterr()
    assert "out.csv: 3 rows from 3" in printed.out
    assert "2 rows have no result:\n" in printed.err and "in.csv, line 2: 0 molecules from 60 evaluations" in printed.err
    assert "1 rows are invalid and have no result:\n" in printed.err and "in.csv, line 3: the SMILES ('C1CC')" in printed.err
    assert "plot.png: not written, since nothing was found" in printed.err and not (tmp_path / "plot.png").exists()
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["smiles"]) == ["CCF", "C1CC", "CCN"] and list(table["seed"].fillna("")) == ["CCF", "", "CCN"]
    assert table["generated"].isna().all() and list(table["seed_score"].isna()) == [False, True, False]
    assert list(pd.read_csv(tmp_path / "bad.csv")["row"]) == [2, 3, 4]


def test_pictures(tmp_path: Path, source: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    plot, grid = tmp_path / "plot.png", tmp_path / "grid.svg"
    assert run(source, "-o", tmp_path / "out.csv", "--plot", plot, "--grid", grid, "--seed", 5) == 0
    assert f"{plot}: written" in capsys.readouterr().err
    assert plot.read_bytes().startswith(b"\x89PNG") and "</svg>" in grid.read_text()


def test_an_invalid_molecule_is_an_error_before_the_search(
    tmp_path: Path, run, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.smi").write_text("CCO\nC1CC\n")
    assert run(tmp_path / "in.smi", "-o", tmp_path / "out.csv") == 2
    assert "in.smi, line 2: the SMILES ('C1CC') could not be parsed" in capsys.readouterr().err and not calls


def test_outputs_are_not_replaced(tmp_path: Path, source: Path, run, calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("out.csv", "bad.csv", "plot.png", "grid.png")
    out, bad, plot, grid = (tmp_path / name for name in names)
    command = (source, "-o", out, "--rejects", bad, "--plot", plot, "--grid", grid)
    for name in names:
        (tmp_path / name).write_text("mine")
        assert run(*command) == 2
        assert f"{tmp_path / name} already exists. Name a different file, or pass --overwrite" in capsys.readouterr().err
        assert not calls and {path.name for path in tmp_path.iterdir()} == {"in.csv", name}
        (tmp_path / name).unlink()
    for name in names:
        (tmp_path / name).write_text("mine")
    assert run(*command, "--overwrite") == 0
    assert all((tmp_path / name).read_bytes() != b"mine" for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--objective", "QED:1,QED:2"), "--objective QED:1,QED:2: 'QED:2' is not a different name with a weight"),
        (("--objective", "qed"), "--objective qed: 'qed' is not the name of a score. The names are QED, plogP."),
        (("--objective", "QED:1,logD:2"), "'logD' is not the name of a score"),
        (("--plot", "a b.gif"), "--plot 'a b.gif': a picture is written as .png or .svg"),
        (("--population", 1), "--population must be at least 2, found 1"),
        (("--seed", -2), "--seed must be at least 0, found -2"),
        (("--plot", "plot.gif"), "--plot plot.gif: a picture is written as .png or .svg"),
        (("--plot", "same.png", "--grid", "same.png"), "same.png is also another output"),
        (("--plot", "OUT.png", "--grid", "no/grid.png"), "there is no folder"),
    ],
)
def test_wrong_options(
    tmp_path: Path, source: Path, run, calls: Calls, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(source, "-o", tmp_path / "out.csv", *options) == 2
    assert message in capsys.readouterr().err and not calls and [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--evaluations", 5),
            "--evaluations 5 is less than --population 30, the number of molecules of one step. Pass --evaluations 30",
        ),
        (("--scaled-radius", 0), "--scaled-radius must be a number above 0, found 0"),
        (("--scaled-radius", 1e30), "--scaled-radius 1e+30 with --unit spread gives latents of up to"),
        (("--min-similarity", 2), "--min-similarity must be a number from 0 to 1, found 2"),
        (("--must-contain", "c1cc"), "--must-contain must be SMARTS"),
        (("--temperature", 0), "--temperature must be a number above 0, found 0"),
        (("-n", 0), "-n must be at least 1, found 0"),
    ],
)
def test_errors_of_the_search_name_options(
    tmp_path: Path, source: Path, run, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source, "-o", tmp_path / "out.csv", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("QED", "QED"), (" plogP ", "plogP"), ("QED:1,plogP:-0.1", {"QED": 1.0, "plogP": -0.1}), ("QED : 2", {"QED": 2.0})],
)
def test_objectives(text: str, expected: object) -> None:
    assert parse_objective(text) == expected


@pytest.mark.parametrize("text", ["QED,plogP", "QED:", ":1", "QED:nan", "QED:inf", "QED:1,", "QED:one", "QED:1:2"])
def test_wrong_objectives(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a different name with a weight"):
        parse_objective(text)
