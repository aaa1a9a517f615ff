"""Package metadata, pinned requirements, the Dockerfile and the make commands in the documents."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import runpy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nemo_cmim
from nemo_cmim.version import __version__

ROOT = Path(__file__).resolve().parents[1]
# Requirements of torch that differ between its builds.
ACCELERATOR = re.compile(r"^(nvidia|cuda)-|^(triton|pytorch-triton|intel|mkl|tbb)")
WITHOUT_DEPENDENCIES = {"datamol", "molsets"}


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    """The arguments of `setup()` in setup.py."""
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return dict(setup.call_args.kwargs)


@functools.cache
def pins() -> dict[str, Requirement]:
    """The lines of constraints.txt that apply to this interpreter, by package name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in requirements if r.marker is None or r.marker.evaluate()}


def requirements(metadata: dict[str, Any]) -> list[Requirement]:
    """All direct requirements, those of the extras included."""
    lists = [metadata["install_requires"], *metadata["extras_require"].values()]
    return [Requirement(line) for lines in lists for line in lines]


def test_the_version_is_defined_once(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == __version__ == nemo_cmim.__version__
    assert f'"{__version__}"' not in (ROOT / "setup.py").read_text()


def test_the_changelog_has_a_section_for_this_version() -> None:
    sections = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = [name for name, _ in sections]
    assert names[0] == "Unreleased" and __version__ in names and len(set(names)) == len(names)
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in sections[1:]) and sections[0][1] == ""


def test_metadata(metadata: dict[str, Any]) -> None:
    assert metadata["name"] == "nemo_cmim"
    assert metadata["python_requires"] == ">=3.10"
    assert metadata["license"] == "Apache-2.0" and "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert metadata["entry_points"] == {
        "console_scripts": ["nemo-cmim = nemo_cmim.cli:main"],
        "molfeat.calc": ["CMIMCalculator = nemo_cmim.molfeat_plugin:CMIMCalculator"],
        "nemo_run.cli": ["cmim = nemo_cmim.recipes"],
    }


def test_every_folder_with_code_and_conf_are_packages(metadata: dict[str, Any]) -> None:
    folders = {path.parent for path in (ROOT / "nemo_cmim").rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {"nemo_cmim.conf"} == set(metadata["packages"])
    assert metadata["package_dir"] == {"nemo_cmim.conf": "conf"} and (ROOT / "conf" / "__init__.py").is_file()


def test_every_data_file_is_packaged(metadata: dict[str, Any]) -> None:
    packaged = set()
    for package in metadata["packages"]:
        folder = ROOT / metadata["package_dir"].get(package, package.replace(".", "/"))
        for pattern in metadata["package_data"].get(package, []):
            packaged.update(folder.glob(pattern))
    present = {p for top in ("nemo_cmim", "conf") for p in (ROOT / top).rglob("*") if p.is_file()}
    assert {p for p in present if p.suffix not in (".py", ".pyc")} == packaged


def test_only_extras_require_the_training_stack(metadata: dict[str, Any]) -> None:
    base = {canonicalize_name(Requirement(line).name) for line in metadata["install_requires"]}
    assert base.isdisjoint({"nemo-toolkit", "megatron-core", "lightning", "hydra-core", "transformers"})
    # The PyPI project of this name is not NVIDIA Apex.
    assert "apex" not in {r.name for r in requirements(metadata)} | set(pins())


def test_every_requirement_is_pinned_within_its_bounds(metadata: dict[str, Any]) -> None:
    pinned = pins()
    for requirement in requirements(metadata):
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "==" and "+" not in pin.version, f"{requirement.name}: {pin}"
        assert requirement.specifier.contains(pin.version), f"{requirement} is pinned to {pin.version}"


def test_requirements_of_requirements_are_pinned(metadata: dict[str, Any]) -> None:
    pending, seen = requirements(metadata), set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen or ACCELERATOR.match(name):
            continue
        seen.add((name, frozenset(requirement.extras)))
        assert name in pins(), f"{name} is not in constraints.txt"
        for line in importlib.metadata.requires(name) or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                pending.append(child)
    assert len(seen) > 50


def test_pins_contain_no_paths_or_urls() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "@" not in text and "/" not in text.replace("nvidia-*", "") and "--" not in re.sub("#.*", "", text)
    assert set(pins()) >= WITHOUT_DEPENDENCIES


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_commands_in_documents_exist(document: str) -> None:
    commands = set(re.findall(r"(?:`|^ {4,})make ([a-z-]+)", (ROOT / document).read_text(), flags=re.MULTILINE))
    assert {"test"} <= commands <= targets()


def test_every_make_target_is_in_its_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert targets() == set(phony.split()) == set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))


def test_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert steps[0][0] == "ARG" and re.fullmatch(r"NEMO_IMAGE=nvcr\.io/nvidia/nemo:[\w.]+", steps[0][1])
    assert steps[1] == ("FROM", "${NEMO_IMAGE}")
    users = [argument for verb, argument in steps if verb == "USER"]
    assert users and users[-1] not in ("root", "0")
    for verb, argument in steps:
        assert not re.search(r"(curl|wget)[^|]*\|", argument), "a download is run without a check"
        assert not re.search(r"pip install.*\bapex\b", argument), "the apex of PyPI is another project"
        assert not re.search(r"(?i)token|password|secret|api_key", argument)
        assert "pip install" not in argument or "uv pip install pip" in argument, "pip could replace the container's torch"
        if verb == "COPY":
            assert all((ROOT / source).exists() for source in argument.split()[:-1])
    assert any("tools/add_missing.py" in argument for verb, argument in steps if verb == "RUN")
