"""Real signals to real processes of the command line: exit status 130 or 143, no traceback, no part of a file."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.interrupts import heed_interrupts
from tests.prepare.command import PATIENCE_S, has_results, wait_for
from tests.prepare.command import start as start_prepare

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def start(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nemo_cmim.cli", *arguments]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=heed_interrupts)


def until(reached: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.02)


def check_ending(process: subprocess.Popen[bytes], number: signal.Signals, log: Path) -> None:
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 128 + number
    said = log.read_text()
    assert "Traceback" not in said and ("interrupted." in said) == (number == signal.SIGINT)


@pytest.mark.parametrize(
    ("command", "number"),
    [("embed", signal.SIGINT), ("embed", signal.SIGTERM), ("score", signal.SIGINT), ("score", signal.SIGTERM)],
)
def test_a_command_leaves_no_part_of_its_output(tmp_path: Path, command: str, number: signal.Signals) -> None:
    folder, log = tmp_path / "folder", tmp_path / "log"
    folder.mkdir()
    (folder / "in.csv").write_text("smiles\n" + "CC(=O)Oc1ccccc1C(=O)O\n" * 300_000)
    process = start(log, command, str(folder / "in.csv"), "-o", str(folder / "out.csv"), "--device", "cpu")
    until(lambda: len(list(folder.iterdir())) > 1, process, log)  # it has begun to write
    check_ending(process, number, log)
    assert [path.name for path in folder.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("number", SIGNALS)
def test_regress_leaves_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    (tmp_path / "in.csv").write_text("smiles,target\n" + "".join(f"{'C' * n}O,{n}\n" for n in range(1, 40)))
    options = ["--features", "morgan64", "--heads", "mlp", "--mlp-steps", "100000000", "-o", str(tmp_path / "out")]
    process = start(log, "regress", str(tmp_path / "in.csv"), *options)
    until(lambda: "morgan64, mlp" in log.read_text(), process, log)  # the progress bar names what is fitted
    check_ending(process, number, log)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_prepare_can_be_resumed(tmp_path: Path, processes: int, number: signal.Signals) -> None:
    """The signal goes to all processes, as from a terminal or a scheduler."""
    (tmp_path / "in.smi").write_text("".join(f"{'C' * (1 + i % 40)}{'O' * (i // 40 + 1)}\n" for i in range(400)))
    process = start_prepare(tmp_path / "in.smi", tmp_path / "out", "--processes", str(processes), stage="chunks", count=1)
    wait_for(functools.partial(has_results, tmp_path / "out", "chunks", 1), process)
    said = None
    while said is None:
        os.killpg(process.pid, number)
        with suppress(
            subprocess.TimeoutExpired
        ):  # RDKit can swallow SIGINT while it searches for substructures: press Ctrl-C again
            said, _ = process.communicate(timeout=60.0)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said and ("Rerun to resume." in said) == (number == signal.SIGINT)
    assert has_results(tmp_path / "out", "chunks", 1) and not (tmp_path / "out").exists()
