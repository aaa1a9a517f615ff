"""A finished run, and copies of it that tests may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps, with checkpoints of steps 4 and 6."""
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from nemo_cmim.training.run import train
    from tests.training.runs import config, every_two

    return train(config(data, tmp_path_factory.mktemp("finished") / "run", *every_two(6)))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run. The process groups are initialised."""
    from nemo_cmim.config import ParallelConfig
    from nemo_cmim.mcore.parallel import initialise

    initialise(ParallelConfig())
    return Path(shutil.copytree(finished, tmp_path / "run"))
