"""`nemo-cmim embed` in real processes: killed and resumed, ended by signals, fed and read through pipes."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError, DataError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel, stream
from nemo_cmim.tables.layout import ReadOptions
from tests.interrupts import heed_interrupts

PATIENCE_S = 600
SLOW = """
import sys, time, pathlib
from nemo_cmim.cli import main
from nemo_cmim.inference import stream
from nemo_cmim.inference.model import CMIMModel
stream.ROWS_AT_ONCE = 4
embed, gate, calls = CMIMModel.embed_or_explain, pathlib.Path(sys.argv[1]), []
def waiting(*arguments, **options):
    calls.append(1)
    if len(calls) == 3:
        gate.touch()
        while True:
            time.sleep(0.02)
    return embed(*arguments, **options)
CMIMModel.embed_or_explain = waiting
sys.exit(main(sys.argv[2:]))
"""


def molecules(folder: Path) -> Path:
    path = folder / "in.csv"
    path.write_text("id,smiles\n" + "".join(f"{i},{'C' * (i % 9 + 1)}{'ON'[i % 2]}\n" if i != 5 else "5,C1C\n" for i in range(22)))
    return path


def interrupted(folder: Path, model_file: Path, number: signal.Signals, *more: str) -> tuple[int, str]:
    """Starts `embed`, ends it by a signal in the third block, and returns status and error output."""
    arguments = [
        "embed",
        str(molecules(folder)),
        "-o",
        str(folder / "out.parquet"),
        "--model",
        str(model_file),
        "--on-invalid",
        "nan",
    ]
    gate = folder / "gate"
    command = [sys.executable, "-c", SLOW, str(gate), *arguments, *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    stop = time.monotonic() + PATIENCE_S
    while not gate.exists() and process.poll() is None:
        assert time.monotonic() < stop
        time.sleep(0.02)
    process.send_signal(number)
    _, printed = process.communicate(timeout=PATIENCE_S)
    gate.unlink()
    return process.returncode, printed


def test_a_killed_call_is_resumed_to_identical_rows(
    tmp_path: Path, model_file: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 4)
    source = molecules(tmp_path)
    stream.embed_file(model, source, tmp_path / "whole.parquet", on_invalid="nan")
    assert interrupted(tmp_path, model_file, signal.SIGKILL, "--resume")[0] == -signal.SIGKILL
    unfinished = tmp_path / ".out.parquet.unfinished"
    assert len(list(unfinished.glob("*.block"))) == 2
    calls: list[int] = []
    embed = CMIMModel.embed_or_explain

    def counting(self: CMIMModel, smiles: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(smiles))
        return embed(self, smiles, *arguments, **options)

    monkeypatch.setattr(CMIMModel, "embed_or_explain", counting)
    done = stream.embed_file(model, source, tmp_path / "out.parquet", on_invalid="nan", resume=True)
    assert calls == [4, 4, 4, 2] and done.rows == 22 and done.invalid == 1
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), pd.read_parquet(tmp_path / "whole.parquet"))
    assert not unfinished.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_nothing_but_unfinished_work(tmp_path: Path, model_file: Path, number: signal.Signals, status: int) -> None:
    for more in ((), ("--resume",)):
        found, printed = interrupted(tmp_path, model_file, number, *more)
        assert found == status and "Traceback" not in printed
        assert sorted(path.name for path in tmp_path.iterdir()) == [*([".out.parquet.unfinished"] if more else []), "in.csv"]


def test_work_on_different_inputs_is_not_resumed(tmp_path: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 4)
    source, target = molecules(tmp_path), tmp_path / "out.parquet"
    with pytest.raises(InvalidSmilesError, match="line 7"):
        stream.embed_file(model, source, target, resume=True)
    with pytest.raises(
        DataError, match=r"unfinished work on .*out\.parquet has different kind.*delete .*\.out\.parquet\.unfinished"
    ):
        stream.embed_file(model, source, target, resume=True, kind="mean")
    source.write_text("smiles\nC\n")
    with pytest.raises(DataError, match="has different inputs"):
        stream.embed_file(model, source, target, resume=True)
    for inputs, output, message in (("-", target, "can be read again"), (source, "-", "standard output")):
        with pytest.raises(ConfigError, match=message):
            stream.embed_file(model, inputs, output, resume=True)


def test_pipes(tmp_path: Path, model_file: Path, model: CMIMModel) -> None:
    command = [sys.executable, "-m", "nemo_cmim.cli", "embed", "-", "-o", "-", "--model", str(model_file), "--kind", "mean"]
    content = gzip.compress(b"name\tSMILES\nethyl alcohol\tCCO\n")
    result = subprocess.run(command, input=content, capture_output=True, timeout=PATIENCE_S, check=True)
    table = pd.read_csv(io.BytesIO(result.stdout))
    assert list(table)[:3] == ["name", "SMILES", "e0"] and table["name"].tolist() == ["ethyl alcohol"]
    np.testing.assert_allclose(table.iloc[0, 2:].astype(float), model.embed(["CCO"], "mean")[0], rtol=1e-4, atol=1e-5)
    assert b"standard output: 1 rows" in result.stderr
    assert os.listdir(tmp_path) == []


def test_several_inputs(tmp_path: Path, model_file: Path, model: CMIMModel, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("Smiles,n\nC,1\nCC,2\n")
    (tmp_path / "b.tsv").write_text("Smiles\tn\nCCO\t3\n")
    (tmp_path / "c.csv").write_text("Smiles,m\nC,1\n")
    command = [
        "embed",
        str(tmp_path / "a.csv"),
        str(tmp_path / "b.tsv"),
        "-o",
        str(tmp_path / "out.npz"),
        "--model",
        str(model_file),
    ]
    assert main(command) == 0
    found = np.load(tmp_path / "out.npz")
    assert found["n"].tolist() == ["1", "2", "3"]
    np.testing.assert_allclose(found["embedding"], model.embed(["C", "CC", "CCO"]), rtol=1e-4, atol=1e-5)
    assert main([command[0], str(tmp_path / "c.csv"), *command[1:], "--overwrite"]) == 2
    assert "a.csv has the columns 'Smiles', 'n', but" in capsys.readouterr().err


def test_sdf_and_options(tmp_path: Path, model: CMIMModel) -> None:
    (tmp_path / "in.csv").write_text("1;OCC\n2;C\n")
    stream.embed_file(model, tmp_path / "in.csv", tmp_path / "out.npy", options=ReadOptions("2", ";", header=False))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model.embed(["CCO", "C"]), rtol=1e-4, atol=1e-5)


def test_a_killed_call_leaves_one_folder_which_the_next_call_removes(tmp_path: Path, model_file: Path) -> None:
    rejects = tmp_path / "bad.csv"
    interrupted(tmp_path, model_file, signal.SIGKILL, "--resume", "--rejects", str(rejects))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "gate") == [".out.parquet.unfinished", "in.csv"]
    command = ["embed", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.parquet"), "--model", str(model_file)]
    assert main([*command, "--on-invalid", "nan", "--rejects", str(rejects), "--resume"]) in (0, 2)


def test_a_folder_of_the_user_is_not_taken_over(tmp_path: Path, model: CMIMModel) -> None:
    folder = tmp_path / ".out.npy.unfinished"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"\.out\.npy\.unfinished is not unfinished work of this program\. Rename it"):
        stream.embed_file(model, molecules(tmp_path), tmp_path / "out.npy", on_invalid="nan", resume=True)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_an_error_before_the_first_block_leaves_no_folder(tmp_path: Path, model: CMIMModel) -> None:
    (tmp_path / "in.csv").write_text("smiles\nC1C\n")
    with pytest.raises(InvalidSmilesError):
        stream.embed_file(model, tmp_path / "in.csv", tmp_path / "out.npy", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_two_calls_do_not_share_unfinished_work(tmp_path: Path, model: CMIMModel) -> None:
    from nemo_cmim.inference.unfinished import Unfinished

    settings = {"kind": "mean"}
    with Unfinished(tmp_path / "out.npy", [], settings).opened() as first:
        with (
            pytest.raises(ConfigError, match=r"out\.npy is in use by process \d+ .*Wait for it to end"),
            Unfinished(tmp_path / "out.npy", [], settings).opened(),
        ):
            pass
        assert (first.folder / "job.json").is_file()
    assert not first.folder.exists()


@pytest.mark.parametrize("keep", [0, 100])
def test_a_damaged_block_is_computed_again(tmp_path: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 4)
    source = molecules(tmp_path)
    with pytest.raises(InvalidSmilesError, match="line 7"):
        stream.embed_file(model, source, tmp_path / "out.npy", resume=True)
    folder = tmp_path / ".out.npy.unfinished"
    (block,) = folder.glob("*.block")
    block.write_bytes(block.read_bytes()[:keep])
    (folder / "my.block").write_text("mine")
    (folder / ".hidden").write_text("mine")
    source.touch()
    os.utime(source, ns=(json.loads((folder / "job.json").read_text())["inputs"][0][2],) * 2)
    source_again = tmp_path / "out.npy"
    with pytest.raises(InvalidSmilesError, match="line 7"):
        stream.embed_file(model, source, source_again, resume=True)
    assert np.load(io.BytesIO(block.read_bytes())).shape == (4, 32)
    assert (folder / "my.block").exists() and (folder / ".hidden").exists()


def test_rejects_on_another_file_system(tmp_path: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=other) as name:
        rejects = Path(name) / "bad.csv"
        stream.embed_file(model, molecules(tmp_path), tmp_path / "out.npy", on_invalid="nan", resume=True, rejects=rejects)
        assert len(rejects.read_text().splitlines()) == 2


def test_standard_input_is_not_replaced(tmp_path: Path, model_file: Path) -> None:
    source = molecules(tmp_path)
    before = source.read_bytes()
    command = [sys.executable, "-m", "nemo_cmim.cli", "embed", "-", "-o", str(source), "--overwrite", "--model", str(model_file)]
    with source.open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "in.csv is also standard input. Name a different file." in done.stderr
    assert source.read_bytes() == before
