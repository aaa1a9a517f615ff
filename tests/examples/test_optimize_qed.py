"""The search for drug-like molecules, with a tiny model."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import optimize_qed
import pytest

from nemo_cmim.inference.model_file import read_model_file, write_model_file
from tests.streaming.conftest import model_file

__all__ = ["model_file"]


@pytest.fixture
def chains(model_file: Path, tmp_path: Path) -> Path:
    """A model that writes chains of carbon, nitrogen and oxygen."""
    content = read_model_file(model_file)
    bias = content.weights["output_bias"].clone()
    for atom in "CNO":
        bias[content.vocabulary.tokens.index(atom)] += 7.0
    path = tmp_path / "chains.nemo"
    write_model_file(path, dataclasses.replace(content, weights={**content.weights, "output_bias": bias}))
    return path


def test_the_script_prints_a_table_and_writes_two_pictures(
    chains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"--model {chains} --evaluations 120 --output {tmp_path / 'out'}"
    monkeypatch.setattr(sys, "argv", ["optimize_qed.py", "CCCCCC", *options.split()])
    optimize_qed.main()
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert re.match(r"[1-9]\d* molecules from 120 evaluations", first)
    assert header.split() == ["score", "similarity", "step", "smiles"]
    scores, similarities = zip(*([float(cell) for cell in row.split()[:2]] for row in rows))
    assert list(scores) == sorted(scores, reverse=True) and min(similarities) >= 0.4
    for name in ("qed_plot.png", "qed_grid.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_a_search_that_finds_nothing_says_so(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(model_file), "--evaluations", "30", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["optimize_qed.py", "c1ccc2ccccc2c1", *options])
    optimize_qed.main()
    assert "0 molecules from 30 evaluations" in capsys.readouterr().out and not (tmp_path / "out").exists()
