"""table1.py and ablations.py end the processes that they started when they receive SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import in_session

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def check_that_nothing_is_left(command: list[str], children: int) -> None:
    """Sends SIGTERM to the command only, once it has this number of children, and waits until all have ended."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 600
        while len(in_session(process.pid)) < 1 + children:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=1)[1]
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 600
        while in_session(process.pid):
            assert time.monotonic() < deadline, "a process that it started still runs"
            time.sleep(0.2)
        assert process.wait(600) == 128 + signal.SIGTERM
    finally:
        for left in in_session(process.pid):
            os.kill(left, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_blocks_end(models: dict[str, Path], data_folder: Path, tmp_path: Path) -> None:
    settings = ["--data", data_folder, "--models", models["cmim"], "--mlp-steps", "1000000", "--jobs", "2", "-o", tmp_path / "out"]
    resource_tracker = 1
    check_that_nothing_is_left([sys.executable, str(EXAMPLES / "table1.py"), *map(str, settings)], 2 + resource_tracker)


@pytest.mark.slow
def test_trainings_end(data_folder: Path, tmp_path: Path) -> None:
    """The trainings are replaced by a script that only waits."""
    training = tmp_path / "training"
    training.write_text("#!/bin/sh\nwhile :; do sleep 1; done\n")
    training.chmod(0o755)
    code = "import sys; sys.executable = sys.argv.pop(1); sys.path.insert(0, sys.argv.pop(1)); "
    code += "import ablations, script; script.run_script(ablations.main)"
    settings = ["--pretraining", tmp_path, "--data", data_folder, "--jobs", "2", "-o", tmp_path / "out"]
    check_that_nothing_is_left([sys.executable, "-c", code, str(training), str(EXAMPLES), *map(str, settings)], 4)
