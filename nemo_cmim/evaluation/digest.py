"""What measured numbers depend on, as digests for the names of kept blocks: code, package versions, data."""

from __future__ import annotations

import ast
import functools
import hashlib
from importlib.metadata import version
from pathlib import Path

from ..downstream import RegressionData

__all__ = ["code_digest", "data_digest", "digest_of", "sources"]

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("rdkit", "scikit-learn", "torch", "numpy")


def digest_of(*parts: object) -> str:
    """SHA-256 of the `repr` of these parts, in hex."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def data_digest(data: RegressionData) -> str:
    """SHA-256 of the molecules and targets of a data set, in their order."""
    return digest_of(list(data.smiles), data.targets.tolist())


def code_digest(module: str, package: Path = PACKAGE) -> str:
    """SHA-256 of the versions of `LIBRARIES` and of all source files that `module` reaches by imports; see `sources`."""
    digest = hashlib.sha256(repr([(name, version(name)) for name in LIBRARIES]).encode())
    for path in sources(module, package):
        digest.update(f"{path.relative_to(package).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def sources(module: str, package: Path = PACKAGE) -> list[Path]:
    """Files of the package that run when `module` is imported and used: its import closure.

    The imports are read from the syntax trees, including imports within functions, and not those for type checkers alone.

    Args:
        module: Full name, such as `nemo_cmim.evaluation.blocks`.
        package: Folder of the package.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        names = waiting.pop().split(".")
        for length in range(1, len(names) + 1):  # a module runs after the `__init__` of each package that holds it
            name = ".".join(names[:length])
            path = _file_of(name, package)
            if path is not None and path not in found:
                found.add(path)
                holding = name if path.name == "__init__.py" else name.rpartition(".")[0]
                waiting += _imports(path.read_text(encoding="utf-8"), holding)
    return sorted(found)


def _file_of(name: str, package: Path) -> Path | None:
    """The file of a module; None if `name` is not a module of the package, for example a function of one."""
    root, *names = name.split(".")
    place = package.joinpath(*names)
    candidates = (place / "__init__.py", *([place.with_name(f"{place.name}.py")] if names else []))
    return next((path for path in candidates if root == "nemo_cmim" and path.is_file()), None)


@functools.cache  # parsing is slow, and most sources stay the same
def _imports(source: str, package: str) -> list[str]:
    """Full names that a module of a package imports: modules, and names within them that may be modules."""
    names: list[str] = []
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[:1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names
