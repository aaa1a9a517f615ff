"""Tests that need a GPU: `make gpu`. Elsewhere they are skipped.

`NEMO_CMIM_TEST_DEVICE=cpu` runs those that can run on a CPU, to rehearse them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DEVICE = os.environ.get("NEMO_CMIM_TEST_DEVICE", "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and skips them where there is no GPU."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.gpu)
            if DEVICE == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def device() -> str:
    """The device that is tested."""
    return DEVICE


@pytest.fixture(autouse=True)
def without_tf32() -> None:
    """NVIDIA's containers turn TF32 on, and a run with `trainer.precision=tf32` leaves it on."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="session")
def on_gpu(device: str) -> tuple[str, ...]:
    """Overrides of a training run on the device."""
    return (f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}", "trainer.devices=1")


@pytest.fixture
def only_cuda(device: str) -> None:
    """Skips a test that cannot be rehearsed."""
    if device != "cuda":
        pytest.skip("cannot be rehearsed on a CPU")
