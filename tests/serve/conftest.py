"""A tiny model with random weights, its file, and an application with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.model_file import write_model_file
from tests.inference.conftest import random_model
from tests.serve.running import client_of


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "random.nemo"
    write_model_file(path, random_model())
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> CMIMModel:
    return load(model_file, "cpu")


@pytest.fixture(scope="session")
def model_of_three_latents(tmp_path_factory: pytest.TempPathFactory) -> CMIMModel:
    path = tmp_path_factory.mktemp("serve") / "three.nemo"
    write_model_file(path, random_model(3))
    return load(path, "cpu")


@pytest.fixture(scope="session")
def client(model: CMIMModel) -> Iterator[TestClient]:
    with client_of(model) as client:
        yield client
