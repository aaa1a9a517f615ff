"""A model that several processes share, and the GPU of each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_cmim.inference import CMIMModel, load, processes
from nemo_cmim.inference.device import device_of_process
from nemo_cmim.inference.shared_model import read_shared, write_shared
from tests.shipped_names import WITHOUT_PROPERTIES

SMILES = ["CCO", "c1ccccc1", "CC(=O)Nc1ccc(O)cc1"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_shared_model_is_the_model(model_file: Path, precision: str, tmp_path: Path) -> None:
    model = load(model_file, "cpu", precision)
    write_shared(model, tmp_path / "shared")
    shared = read_shared(tmp_path / "shared")
    assert (shared.name, shared.precision, shared.fingerprint()) == (model.name, precision, model.fingerprint())
    np.testing.assert_array_equal(shared.embed(SMILES), model.embed(SMILES))
    same = [(a.data_ptr(), b.data_ptr()) for a in model.network.parameters() for b in model.network.parameters() if a is not b]
    again = [(a.data_ptr(), b.data_ptr()) for a in shared.network.parameters() for b in shared.network.parameters() if a is not b]
    assert [a == b for a, b in same] == [a == b for a, b in again]  # tied weights are still tied
    before = (tmp_path / "shared").read_bytes()
    with torch.no_grad():
        next(shared.network.parameters()).fill_(0)
    assert (tmp_path / "shared").read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux lists the memory of a process by file")
def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    model = load(WITHOUT_PROPERTIES, "cpu")
    write_shared(model, tmp_path / "shared")
    code = f"""
from pathlib import Path
from nemo_cmim.inference.shared_model import read_shared
model = read_shared(Path({os.fspath(tmp_path / "shared")!r}))
model.embed(["CCO"])
lines = iter(Path("/proc/self/smaps").read_text().splitlines())
numbers = {{}}
for line in lines:
    if line.endswith({os.fspath(tmp_path / "shared")!r}):
        numbers = {{}}
        for line in lines:
            name, value, *_ = line.split()
            numbers[name] = value
            if name == "VmFlags:":
                break
        break
print(numbers["Rss:"], numbers["Anonymous:"])
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    resident_kb, copied_kb = map(int, done.stdout.split())
    weights_kb = sum(weight.numel() for weight in model.network.parameters()) * 4 / 1024
    assert resident_kb > weights_kb / 2 and copied_kb < weights_kb / 100


def test_processes_use_the_gpus_in_turn(model: CMIMModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    numbers = [processes._claimed_number(os.fspath(tmp_path)) for _ in range(4)]
    assert numbers == [0, 1, 2, 3]
    assert [str(device_of_process(torch.device("cuda"), number)) for number in numbers] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert str(device_of_process(torch.device("cuda:1"), 2)) == "cuda:1" and str(device_of_process(torch.device("cpu"), 2)) == "cpu"
