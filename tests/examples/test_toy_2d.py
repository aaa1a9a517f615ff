"""The 2D toy of Sec. 3.2, smaller and shorter."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "toy_2d.py"


@pytest.fixture(scope="module")
def toy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("toy_2d", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_angles_spread_and_radii_stay(toy: ModuleType) -> None:
    kept = toy.optimise(seed=0, points=200, steps=2500)
    before, after = (toy.polar(kept[step]) for step in (0, 2500))
    assert before[0].min() >= 0 and before[0].max() <= np.pi / 2, "they start in the first quadrant"
    for harmonic in (1, 2):
        assert np.abs(np.exp(1j * harmonic * before[0]).mean()) > 0.5
        assert np.abs(np.exp(1j * harmonic * after[0]).mean()) < 0.02
    assert np.corrcoef(before[1], after[1])[0, 1] > 0.99
    assert after[1].std() == pytest.approx(before[1].std(), rel=0.1)


def test_the_script_writes_its_figure(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = toy.optimise(0, 50, 60)
    monkeypatch.setattr(toy, "optimise", lambda seed: short)
    monkeypatch.setattr(sys, "argv", ["toy_2d.py", "-o", str(tmp_path / "figure.png")])
    toy.main()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "Rayleigh" in capsys.readouterr().out
