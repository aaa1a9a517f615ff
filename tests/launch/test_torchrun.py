"""`torchrun examples/pretrain.py`, as described in docs/launch.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import nemo_cmim
from tests.training.runs import overrides, steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_torchrun_trains_on_two_tensor_parallel_processes(data: Path, tmp_path: Path) -> None:
    settings = overrides(data, tmp_path / "run", "trainer.max_steps=3", "model.parallel.tensor_model_parallel_size=2")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(ROOT / "examples" / "pretrain.py"), *settings, "trainer.devices=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Run folder: {tmp_path / 'run'}" in done.stdout
    assert [row["molecules"] for row in steps(tmp_path / "run")] == [16, 16, 16]
    assert nemo_cmim.load(next((tmp_path / "run" / "checkpoints").glob("*.nemo"))).embed(["CCO"]).shape == (1, 32)
