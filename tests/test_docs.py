"""Statements of the documentation: the equation index, the table of baseline models, the first Python lines of the README."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
OBJECTIVES = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
ROWS = [row for row in OBJECTIVES.split("## From equation")[1].splitlines() if row.startswith("| ") and "`" in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_the_equation_index_names_existing_functions_and_tests(row: str) -> None:
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
        package = "" if module.startswith("examples.") else "nemo_cmim."
        assert hasattr(importlib.import_module(package + module), name), dotted


def test_the_table_of_systems_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from nemo_cmim.cli import main

    assert main(["systems"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert "\n".join(table) in OBJECTIVES


def test_the_first_python_lines_of_the_readme_give_what_they_say() -> None:
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    *statements, last = snippet.splitlines()
    shown, said = last.split("  # ", 1)
    scope: dict[str, Any] = {}
    exec("\n".join(statements), scope)
    shape, dtype = eval(shown, scope)
    assert said.startswith(f"{shape} {dtype};"), (shape, dtype)
