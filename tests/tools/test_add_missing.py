"""What a container lacks, found without touching what it has."""

from __future__ import annotations

import importlib.metadata

import pytest

from tools.add_missing import pins, survey

INSTALLED = {"nemo-cmim": "0.1", "torch": "2.10.0a0", "lightning": "2.6.6", "nemo-toolkit": "3.0.0"}
REQUIRES = {
    "nemo-cmim": ["torch>=2.6", "rdkit>=2026.3", 'nemo_toolkit[core]>=3.0; extra == "train"', 'nemo_run; extra == "launch"'],
    "nemo-toolkit": ["tqdm", 'lightning<=2.4.0; extra == "core"', 'windows-only; sys_platform == "win32"'],
    "torch": ["nvidia-cublas"],
    "lightning": [],
}


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise importlib.metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", REQUIRES.__getitem__)


@pytest.mark.usefixtures("container")
def test_only_what_is_missing_is_installed() -> None:
    before = set(INSTALLED) - {"nemo-cmim", "nemo-toolkit"}  # NeMo was added in an earlier round
    missing, unsatisfied = survey({"train"}, before, set())
    assert set(missing) == {"rdkit", "tqdm"}, "neither what the container's torch asks for, nor an extra that nobody wants"
    assert unsatisfied == ["nemo-toolkit asks for lightning<=2.4.0; installed is 2.6.6"]


@pytest.mark.usefixtures("container")
def test_a_package_that_may_be_replaced_counts_as_missing() -> None:
    missing, unsatisfied = survey({"train"}, {"torch", "lightning"}, {"lightning"})
    assert set(missing) == {"rdkit", "tqdm", "lightning"} and not unsatisfied


def test_pins_of_a_constraints_file() -> None:
    assert pins("# all\nnumpy==2.4.6\nStrEnum==0.4.15  # why\nold==1.0 ; python_version < '3.11'\n\nfree\n") == {
        "numpy": "2.4.6",
        "strenum": "0.4.15",
        "old": "1.0",
    }
