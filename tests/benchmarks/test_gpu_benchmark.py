"""The benchmarks for a GPU, rehearsed on a CPU as far as a test has time for it."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core", reason="needs the [train] extra")
pytest.importorskip("transformers", reason="needs the [dev] extra")

from benchmarks.gpu.__main__ import SECTIONS, main
from tests.conftest import REAL_SMILES


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks.gpu", *arguments])
    return main()


def test_a_section_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(setting: object) -> list[str]:
        raise RuntimeError("out of luck")

    monkeypatch.setitem(SECTIONS, "compiled", ("never", fail))
    file = str(REAL_SMILES / "molecules.smi")
    assert run(monkeypatch, "compiled", "loading", "--device", "cpu", "--smiles", file, "--molecules", "200", "--repeats", "1") == 1
    printed = capsys.readouterr()
    assert "out of luck" in printed.err
    assert "## GPU: loader" in printed.out and "CPU, rehearsal" in printed.out


def test_a_rehearsal_is_not_recorded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--device", "cpu", "--record")
    assert "a rehearsal is not recorded" in capsys.readouterr().err
