"""The digest of the code: every module that an evaluation can reach changes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cmim.evaluation.digest import PACKAGE, code_digest, sources

CACHES = ("nemo_cmim.evaluation.blocks", "nemo_cmim.evaluation.decoding", "nemo_cmim.evaluation.leakage")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package's sources."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "nemo_cmim", ignore=shutil.ignore_patterns("*.nemo", "__pycache__")))


@pytest.mark.parametrize("module", CACHES)
def test_an_edit_of_any_module_in_the_import_closure_changes_the_digest(copy: Path, module: str) -> None:
    digests = {code_digest(module, copy)}
    files = sources(module, copy)
    for path in files:
        with path.open("a") as source:
            source.write("# changed\n")
        digests.add(code_digest(module, copy))
    assert len(digests) == len(files) + 1
    unrelated = copy / "training" / "model.py"
    assert unrelated.is_file() and unrelated not in files


@pytest.mark.parametrize("module", CACHES[1:])  # both load the first
def test_the_closure_has_every_module_that_is_loaded(module: str) -> None:
    """What Python really loads for the module, with the lazy imports of the functions that it uses."""
    code = (
        f"import sys, {module}, nemo_cmim.inference.shipped; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'nemo_cmim'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = {Path(file) for file in done.stdout.split()}
    assert len(loaded) > 20 and loaded <= set(sources(module))


def test_the_closure_has_what_the_numbers_depend_on() -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in sources("nemo_cmim.evaluation.blocks")}
    assert {
        "types.py", "config.py", "molecules/parsing.py", "version.py", "properties/heads.py", "properties/splits.py", "models/network.py",
        "tokenizers/pattern.py", "inference/model.py", "evaluation/measure.py", "evaluation/features.py",
    } <= names  # fmt: skip


def test_imports_of_all_forms_are_followed(tmp_path: Path) -> None:
    modules = {
        "__init__": "",
        "a": "from typing import TYPE_CHECKING\nfrom . import b\nif TYPE_CHECKING:\n    from . import unused\nelse:\n    from . import c",
        "b": "def f():\n    import nemo_cmim.room.d as d\n    return d",
        "c": "from .room import function",
        "unused": "",
        "room/__init__": "from .e import function",
        "room/d": "from ..f import VALUE",
        "room/e": "import json\ndef function(): ...",
        "f": "VALUE = 1",
    }
    (tmp_path / "room").mkdir()
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    found = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in sources("nemo_cmim.a", tmp_path)}
    assert found == modules.keys() - {"unused"}
