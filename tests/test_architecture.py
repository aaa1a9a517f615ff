"""Who may import whom, how long things may be, what must be documented: read from the source, without running it."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room may import those of the levels above its own. Rooms of one level do not know each other.
LEVELS = [
    ("version", "errors", "types"),
    ("files", "signals", "config", "molecules"),
    ("tables", "tokenizers", "losses", "scaling"),
    ("models", "store"),
    ("zinc", "inference"),
    ("prepare",),
    ("loader",),
    ("report",),
    ("mcore",),
    ("training",),
    ("recipes",),
]
MAY_IMPORT = {room: {r for above in LEVELS[:i] for r in above} for i, level in enumerate(LEVELS) for room in level}
MAY_IMPORT["scaling"] = {"version", "errors", "config"}
MAY_IMPORT["downstream"] = {"version", "errors", "types", "molecules", "tables"}
for room in ("store", "zinc", "prepare", "loader", "report"):  # data go one way, and know no model
    MAY_IMPORT[room] -= {"losses", "scaling", "models", "inference"}
MAY_IMPORT["inference"] -= {"losses", "scaling", "store"}
MAY_IMPORT["mcore"] -= {"tables", "zinc", "prepare", "report", "inference"}
MAY_IMPORT["training"] -= {"zinc", "prepare", "report"}
MAY_IMPORT["comparison"] = {*MAY_IMPORT["training"], "downstream"} - {
    "mcore"
}  # trains by the command line, in processes of their own
ENTRANCES = {"__init__", "cli"}  # may import every part; no part may import them

TRAINING_STACK = {"megatron", "nemo", "lightning", "pytorch_lightning", "transformer_engine", "apex"}
LAUNCH_STACK = {"nemo_run", "fiddle", "torchx"}
WITHOUT_TRAINING_STACK = [part for part in MAY_IMPORT if part not in ("mcore", "training", "recipes")]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str) -> dict[str, Path]:
    """Python files of these folders by their path from the root."""
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path for path in found}


PACKAGE = files("nemo_cmim")
TESTS = files("tests")
SCRIPTS = files("examples", "benchmarks", "tools", "conf") | {"setup.py": ROOT / "setup.py"}
EVERYTHING = PACKAGE | TESTS | SCRIPTS


def part_of(name: str) -> str:
    """`losses` for nemo_cmim/losses/mim.py, `config` for nemo_cmim/config.py."""
    return name.split("/")[1].removesuffix(".py")


@functools.cache
def tree_of(name: str) -> ast.Module:
    """The syntax tree; a grammar newer than Python 3.10 is an error."""
    return ast.parse(EVERYTHING[name].read_text(encoding="utf-8"), filename=name, feature_version=(3, 10))


def functions(name: str) -> Iterator[Function]:
    """All functions and methods, also inner ones."""
    return (node for node in ast.walk(tree_of(name)) if isinstance(node, Function))


def imports(name: str) -> Iterator[tuple[int, list[str]]]:
    """Line and dotted path of every import, wherever in the file it stands; relative paths made absolute."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split("/")[: -node.level] if node.level else []
            module = node.module.split(".") if node.module else []
            yield from ((node.lineno, [*package, *module, alias.name]) for alias in node.names)


def test_every_part_has_its_place() -> None:
    assert {part_of(name) for name in PACKAGE} <= set(MAY_IMPORT) | ENTRANCES


def test_imports_go_one_way() -> None:
    wrong = []
    for name in PACKAGE:
        part = part_of(name)
        for line, path in imports(name):
            if part not in ENTRANCES and path[0] == "nemo_cmim" and path[1] not in MAY_IMPORT[part] | {part}:
                wrong.append(f"{name}:{line} imports {'.'.join(path)}; {part} may import {', '.join(sorted(MAY_IMPORT[part]))}")
            if path[0] in ("tests", "examples", "benchmarks", "tools", "conf"):
                wrong.append(f"{name}:{line} imports {'.'.join(path)}, which is no part of the package")
    assert not wrong, "\n".join(wrong)


def test_only_mcore_and_training_import_the_training_stack() -> None:
    wrong = []
    for name in PACKAGE:
        for line, path in imports(name):
            if path[0] in TRAINING_STACK and part_of(name) not in ("mcore", "training"):
                wrong.append(f"{name}:{line} imports {'.'.join(path)}")
    assert not wrong, "\n".join(wrong)


def test_only_recipes_imports_nemo_run() -> None:
    users = {name for name in PACKAGE | SCRIPTS for _, path in imports(name) if path[0] in LAUNCH_STACK}
    assert users == {"nemo_cmim/recipes.py"}


def test_only_molecules_imports_rdkit() -> None:
    users = {name for name in PACKAGE for _, path in imports(name) if path[0] == "rdkit"}
    assert users == {"nemo_cmim/molecules.py"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["nemo_cmim", "nemo_cmim.cli", "nemo_cmim.scaling"], {"torch", "rdkit", "pandas", "numpy", "sklearn"}),
        ([f"nemo_cmim.{part}" for part in WITHOUT_TRAINING_STACK], TRAINING_STACK | LAUNCH_STACK | {"transformers"}),
    ],
    ids=["the package itself is light", "inference stays apart from training"],
)
def test_what_an_import_brings(modules: list[str], absent: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert absent.isdisjoint(done.stdout.split()), f"{modules} brought {absent & set(done.stdout.split())}"


def test_files_are_short() -> None:
    lengths = {name: path.read_text(encoding="utf-8").count("\n") for name, path in EVERYTHING.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {f"{name}: {f.name}": (f.end_lineno or 0) - f.lineno + 1 for name in EVERYTHING for f in functions(name)}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_no_file_is_a_drawer_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [name for name, path in EVERYTHING.items() if path.stem in drawers] == []


def test_test_files_have_names_of_their_own() -> None:
    stems = [path.stem for path in TESTS.values() if path.stem != "conftest"]
    assert sorted(stems) == sorted(set(stems))


def undocumented(name: str) -> Iterator[str]:
    """The module, and its public functions, classes and methods, that lack a docstring."""
    bodies: list[ast.Module | ast.ClassDef] = [tree_of(name)]
    if not ast.get_docstring(bodies[0]):
        yield name
    for body in bodies:
        for node in body.body:
            if isinstance(node, (Function, ast.ClassDef)) and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{name}:{node.lineno} {node.name}"
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bodies.append(node)


def test_public_names_are_documented() -> None:
    assert [place for name in PACKAGE | SCRIPTS for place in undocumented(name)] == []


def can_fail(function: Function) -> bool:
    """True if the function asserts something that is not constant, expects an error, or calls a check."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("raises", "warns", "fail") or called.lstrip("_").startswith(("assert_", "check_")):
                return True
    return False


def test_every_test_can_fail() -> None:
    tests = [(name, function) for name in TESTS for function in functions(name) if function.name.startswith("test_")]
    assert [f"{name}:{function.lineno} {function.name}" for name, function in tests if not can_fail(function)] == []
