"""What the docs point at is there: each function and test of the equation index, and the table of systems."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OBJECTIVES = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
ROWS = [row for row in OBJECTIVES.split("## From equation")[1].splitlines() if row.startswith("| ") and "`" in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_of_the_equation_index_points_at_what_is_there(row: str) -> None:
    functions = [name for name in re.findall(r"`([a-z_0-9]+(?:\.[A-Za-z_0-9]+)+)`", row) if not name.endswith(".py")]
    tests = re.findall(r"`(\S+\.py)::(\S+)`", row)
    assert functions and tests
    for path, name in tests:
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"
    for dotted in functions:
        module, name = dotted.rsplit(".", 1)
        if module.startswith("training"):
            pytest.importorskip("nemo.core", reason="needs the [train] extra")
        assert hasattr(importlib.import_module(f"nemo_cmim.{module}"), name), dotted


def test_the_table_of_systems_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from nemo_cmim.cli import main

    assert main(["systems"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert "\n".join(table) in OBJECTIVES
