"""Which modules a network is built from, on machines with and without GPUs, Transformer Engine and Apex."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

pytest.importorskip("megatron.core", reason="needs the [train] extra")

from megatron.core.models import backends
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.transformer.torch_norm import WrappedTorchNorm

from nemo_cmim.config import ParallelConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.mcore import specs
from nemo_cmim.mcore.parallel import initialise, runs_on_gpu
from nemo_cmim.mcore.specs import choose_backend

TE_PROVIDER = "megatron.core.extensions.transformer_engine_spec_provider"


class TransformerEngine(LocalSpecProvider):
    pass


class ApexNorm:
    pass


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU on which Transformer Engine and Apex are installed."""
    provider = ModuleType(TE_PROVIDER)
    provider.TESpecProvider = TransformerEngine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, TE_PROVIDER, provider)
    monkeypatch.setitem(sys.modules, "transformer_engine", ModuleType("transformer_engine"))
    monkeypatch.setattr(specs.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(backends, "LNImpl", ApexNorm)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_on_the_cpu_has_no_module_that_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(specs, "runs_on_gpu", lambda: False)
    backend = choose_backend(True, dtype)
    assert not isinstance(backend, TransformerEngine) and backend.layer_norm() is WrappedTorchNorm


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("wanted", "dtype", "expected"),
    [
        (True, torch.bfloat16, TransformerEngine),
        (True, torch.float16, TransformerEngine),
        (True, torch.float32, LocalSpecProvider),  # Transformer Engine would multiply in TF32
        (False, torch.bfloat16, LocalSpecProvider),
    ],
)
def test_a_run_on_a_gpu(monkeypatch: pytest.MonkeyPatch, wanted: bool, dtype: torch.dtype, expected: type) -> None:
    monkeypatch.setattr(specs, "runs_on_gpu", lambda: True)
    backend = choose_backend(wanted, dtype)
    assert type(backend) is expected
    assert backend.layer_norm() is ApexNorm


def test_without_transformer_engine_the_modules_are_those_of_megatron(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(specs.importlib.util, "find_spec", lambda name: None)
    assert type(choose_backend(True, torch.bfloat16)) is LocalSpecProvider


def test_a_process_cannot_change_its_type_of_device() -> None:
    initialise(ParallelConfig())
    with pytest.raises(ConfigError, match=r"already runs on cpu, and cannot change to cuda\. Start a new process"):
        initialise(ParallelConfig(), device="cuda")
    assert not runs_on_gpu()
