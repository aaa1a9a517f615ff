"""`-o` of every command: what stands there is kept and is an early error, and `--overwrite` replaces exactly that file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nemo_cmim.cli import main
from nemo_cmim.config import ModelConfig, NetworkConfig
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.outputs import MANIFEST
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.tokenizers import SmilesTokenizer

REPORT = ["parity.png", "predictions.csv", "report.md", "runs.csv"]
Command = Callable[[Path], list[str]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "in.csv").write_text("smiles,target\n" + "".join(f"{'C' * n}O,{n}\n" for n in range(1, 13)))
    prepare([folder / "in.csv"], folder / "data", processes=1)
    torch.manual_seed(0)
    network = NetworkConfig(hidden_size=8, encoder_layers=1, decoder_layers=1, attention_heads=2, ffn_size=16)
    content = ModelFile(ModelConfig(network=network), SmilesTokenizer().vocabulary, CMIMNetwork(network).state_dict())
    write_model_file(folder / "model.nemo", content)
    return folder


@pytest.fixture(params=["tranches", "overlap", "data-report", "export"])
def command(request: pytest.FixtureRequest, inputs: Path) -> Command:
    data, table = str(inputs / "data"), str(inputs / "in.csv")
    words = {
        "tranches": ["tranches", "BAAA"],
        "overlap": ["overlap", data, table],
        "data-report": ["data-report", data],
        "export": ["export", str(inputs / "model.nemo")],
    }[request.param]
    return lambda path: [*words, "-o", str(path)]


def test_a_file_is_kept_unless_overwrite_is_given(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / ("ü" * 123 + "x.nemo")
    assert main(command(out)) == 0
    written = out.read_bytes()
    out.write_text("mine")
    capsys.readouterr()
    assert main(command(out)) == 2
    error = capsys.readouterr().err
    assert "already exists. Name a different file, or pass --overwrite to replace it." in error
    assert error.count("\n") == 1
    assert out.read_text() == "mine"
    assert main([*command(out), "--overwrite"]) == 0
    assert out.read_bytes() == written
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("place", ["folder", "no/out", "x" * 300, "/dev/full"])
def test_a_file_that_cannot_be_written_is_one_line(
    command: Command, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    assert main([*command(tmp_path / place), "--overwrite"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and str(tmp_path / place) in said.err and not said.out
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def regress(inputs: Path, out: Path, *more: str) -> list[str]:
    quick = ["--features", "morgan64", "--heads", "svm", "--folds", "2", "--seeds", "1"]
    return ["regress", str(inputs / "in.csv"), *quick, "-o", str(out), *more]


def test_regress_replaces_its_own_report_only(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    with (inputs / "in.csv").open() as file:
        (inputs / "bad.csv").write_text(f"{file.read()}C1CC,3\n")
    with pytest.warns(UserWarning, match="line 14"):
        bad = [str(inputs / "bad.csv") if word.endswith("in.csv") else word for word in regress(inputs, out)]
        assert main([*bad, "--on-invalid", "drop"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([MANIFEST, "dropped.csv", *REPORT])
    (out / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main(regress(inputs, out)) == 2
    said = capsys.readouterr()
    assert "is not empty. Name a different folder, or pass --overwrite to replace" in said.err and "%" not in said.err, "too late"
    assert main(regress(inputs, out, "--overwrite")) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([MANIFEST, "notes.txt", *REPORT]), "no stale dropped.csv"
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["runs.csv", MANIFEST])
def test_regress_does_not_replace_a_file_of_the_user(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("mine")
    assert main(regress(inputs, tmp_path, "--overwrite")) == 2
    said = capsys.readouterr()
    assert f"{name} exists, and the manifest.json of an earlier output does not list it" in said.err and not said.out
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_prepare_does_not_replace_a_folder_with_a_file_of_the_user(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prepare", str(inputs / "in.csv"), "-o", str(tmp_path / "out"), "--processes", "1", "--overwrite"]
    assert main(command) == 0
    assert main(command) == 0, "its own folder"
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main(command) == 2
    assert "contains 'notes.txt', which `prepare` did not write" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {**before, "notes.txt": b"mine"}


def test_prepare_does_not_replace_a_report_or_another_folder_with_a_manifest(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(regress(inputs, tmp_path / "report")) == 0
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / MANIFEST).write_text('{"name": "an app"}')
    for out in ("report", "app"):
        assert main(["prepare", str(inputs / "in.csv"), "-o", str(tmp_path / out), "--processes", "1", "--overwrite"]) == 2
        assert "is not prepared data and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "report" / "report.md").exists() and (tmp_path / "app" / MANIFEST).exists()


def test_an_input_is_not_replaced(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = tmp_path / "data", tmp_path / "model.nemo"
    shutil.copytree(inputs / "data", data)
    shutil.copy(inputs / "model.nemo", model)
    table = tmp_path / "in.csv"
    shutil.copy(inputs / "in.csv", table)
    (tmp_path / "link").symlink_to(table)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in (
        ["overlap", data, table, "-o", table],
        ["overlap", data, table, "-o", tmp_path / "link"],
        ["overlap", data, table.as_uri(), "-o", table],
        ["embed", table.as_uri(), "--model", model, "-o", table],
        ["overlap", data, table, "-o", data / MANIFEST],
        ["data-report", data, "-o", data / MANIFEST],
        ["export", model, "-o", model],
        ["embed", table, "--model", model, "-o", table],
    ):
        assert main([*map(str, command), "--overwrite"]) == 2
        assert "is also an input. Name a different file." in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_regress_does_not_replace_its_input(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert main(regress(inputs, out)) == 0
    predictions = (out / "predictions.csv").read_bytes()
    command = regress(inputs, out, "--overwrite", "--smiles", "smiles")
    assert main([command[0], str(out / "predictions.csv"), *command[2:]]) == 2
    assert "predictions.csv is also an input" in capsys.readouterr().err
    assert (out / "predictions.csv").read_bytes() == predictions


@pytest.mark.parametrize(
    "words", [["tranches", "BAAA"], ["overlap", "DATA", "TABLE"], ["regress", "TABLE"], ["data-report", "DATA"]]
)
def test_standard_output_is_not_a_file(
    inputs: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"DATA": str(inputs / "data"), "TABLE": str(inputs / "in.csv")}
    assert main([*(places.get(word, word) for word in words), "-o", "-"]) == 2
    assert "'-' stands for standard output" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
