"""Rules for the source: imports, lengths, documentation. The source is parsed, not run."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A part of the package may import the parts of the levels above its own. Parts of one level do not import each other.
LEVELS = [
    ("version", "errors", "types", "markdown"),
    ("arguments", "cores", "mappings", "steps"),
    ("files", "signals", "config", "molecules", "observed"),
    ("outputs",),
    ("tables", "tokenizers", "losses", "scaling"),
    ("models", "store"),
    ("generation", "optimization"),
    ("zinc", "inference"),
    ("properties",),
    ("streaming",),
    ("prepare",),
    ("distributed",),
    ("neighbors",),
    ("loader",),
    ("report",),
    ("evaluation",),
    ("mcore",),
    ("training",),
    ("recipes", "molfeat_plugin"),
    ("serve",),
]
MAY_IMPORT = {part: {p for above in LEVELS[:i] for p in above} for i, level in enumerate(LEVELS) for part in level}
MAY_IMPORT["scaling"] = {"version", "errors", "mappings", "config", "markdown"}
MAY_IMPORT["downstream"] = {"version", "errors", "types", "markdown", "molecules", "steps", "outputs", "tables", "properties"}
for part in ("store", "zinc", "prepare", "loader", "report"):  # data preparation does not depend on models
    MAY_IMPORT[part] -= {"losses", "scaling", "models", "generation", "optimization", "inference", "properties"}
MAY_IMPORT["report"] |= {"properties"}  # a page about a property model
MAY_IMPORT["properties"] -= {"losses", "scaling", "store", "zinc", "generation", "optimization", "observed", "streaming"}
MAY_IMPORT["streaming"] -= {"losses", "scaling", "models", "store", "zinc"}
MAY_IMPORT["inference"] -= {"losses", "scaling", "store"}
MAY_IMPORT["mcore"] -= {"tables", "zinc", "prepare", "report", "inference"}
MAY_IMPORT["evaluation"] = MAY_IMPORT["evaluation"] - {"zinc", "prepare", "scaling"} | {"downstream"}
for part in ("mcore", "training"):  # a comparison of objectives starts training from the command line, in other processes
    MAY_IMPORT[part] -= {"evaluation"}
MAY_IMPORT["training"] -= {"zinc", "prepare", "report"}
MAY_IMPORT["serve"] = {"version", "errors", "arguments", "generation", "optimization", "inference"}
ENTRY_POINTS = {"__init__", "cli"}  # may import every part; no part may import them

TRAINING_STACK = {"megatron", "nemo", "lightning", "pytorch_lightning", "transformer_engine", "apex"}
LAUNCH_STACK = {"nemo_run", "fiddle", "torchx"}
WITHOUT_TRAINING_STACK = [part for part in MAY_IMPORT if part not in ("mcore", "training", "recipes", "molfeat_plugin")]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str) -> dict[str, Path]:
    """Python files of these folders by their path relative to the root."""
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
    """The syntax tree. Syntax newer than Python 3.10 is an error."""
    return ast.parse(EVERYTHING[name].read_text(encoding="utf-8"), filename=name, feature_version=(3, 10))


def functions(name: str) -> Iterator[Function]:
    """All functions and methods, nested ones included."""
    return (node for node in ast.walk(tree_of(name)) if isinstance(node, Function))


def imports(name: str) -> Iterator[tuple[int, list[str]]]:
    """Line and absolute dotted path of every import, those in functions and under TYPE_CHECKING included."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split("/")[: -node.level] if node.level else []
            module = node.module.split(".") if node.module else []
            yield from ((node.lineno, [*package, *module, alias.name]) for alias in node.names)


def test_every_part_has_import_rules() -> None:
    assert {part_of(name) for name in PACKAGE} <= set(MAY_IMPORT) | ENTRY_POINTS


def test_parts_import_only_the_levels_above() -> None:
    wrong = []
    for name in PACKAGE:
        part = part_of(name)
        for line, path in imports(name):
            if part not in ENTRY_POINTS and path[0] == "nemo_cmim" and path[1] not in MAY_IMPORT[part] | {part}:
                wrong.append(f"{name}:{line} imports {'.'.join(path)}; {part} may import {', '.join(sorted(MAY_IMPORT[part]))}")
            if path[0] in ("tests", "examples", "benchmarks", "tools", "conf"):
                wrong.append(f"{name}:{line} imports {'.'.join(path)}, which is not part of the package")
    assert not wrong, "\n".join(wrong)


def file_of(path: list[str]) -> str | None:
    """File of the package that an import path names: `losses/__init__.py` for nemo_cmim.losses.Objective; None for other packages."""
    for stop in range(len(path), 0, -1):
        stem = "/".join(path[:stop])
        for name in (f"{stem}.py", f"{stem}/__init__.py"):
            if name in PACKAGE:
                return name
    return None


def test_files_do_not_import_each_other_in_a_cycle() -> None:
    """Imports in functions and under TYPE_CHECKING count too."""
    graph = {name: {file for _, path in imports(name) if (file := file_of(path)) not in (None, name)} for name in PACKAGE}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


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
    users = {part_of(name) for name in PACKAGE for _, path in imports(name) if path[0] == "rdkit"}
    assert users == {"molecules"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["nemo_cmim", "nemo_cmim.cli", "nemo_cmim.scaling"], {"torch", "rdkit", "pandas", "numpy", "sklearn"}),
        (["nemo_cmim.tokenizers", "nemo_cmim.types"], {"torch", "rdkit", "pandas", "sklearn"}),
        ([f"nemo_cmim.{part}" for part in WITHOUT_TRAINING_STACK], TRAINING_STACK | LAUNCH_STACK | {"transformers"}),
    ],
    ids=["the package itself is light", "the tokenizer is free of torch", "inference stays apart from training"],
)
def test_imports_do_not_load_heavy_packages(modules: list[str], absent: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert absent.isdisjoint(done.stdout.split()), f"{modules} loaded {absent & set(done.stdout.split())}"


def test_files_are_short() -> None:
    lengths = {name: path.read_text(encoding="utf-8").count("\n") for name, path in EVERYTHING.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {f"{name}: {f.name}": (f.end_lineno or 0) - f.lineno + 1 for name in EVERYTHING for f in functions(name)}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_no_file_has_a_catch_all_name() -> None:
    catch_all = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [name for name, path in EVERYTHING.items() if path.stem in catch_all] == []


def test_test_files_have_unique_names() -> None:
    stems = [path.stem for path in TESTS.values() if path.stem != "conftest"]
    assert sorted(stems) == sorted(set(stems))


def undocumented(name: str) -> Iterator[str]:
    """The module and its public functions, classes and methods without a docstring."""
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
    """Whether the function has an assertion that is not constant, expects an error, or calls a check."""
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
