"""The keeper of measurements replaces its own section and no other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

REPORT = Path(__file__).parents[2] / "benchmarks" / "report.py"


def test_record_replaces_the_section_of_its_title(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_report", REPORT)
    assert spec is not None and spec.loader is not None
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    results = tmp_path / "RESULTS.md"
    report.record("Speed", "make a", ["first", "", "### part"], results=results)
    report.record("Speed of b", "make b", ["second"], seed=7, results=results)
    report.record("Speed", "make a again", ["third"], results=results)
    text = results.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Measurements", "## Speed", "## Speed of b"]
    assert "first" not in text and "third" in text and "second" in text
    assert text.index("third") < text.index("second")
    facts = next(line for line in text.splitlines() if line.startswith("`make b`"))
    assert "cores" in facts and "commit" in facts and facts.endswith("seed 7")
