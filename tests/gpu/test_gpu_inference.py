"""`embed` and `decode` on a GPU: the vectors and molecules of the CPU, in batches of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_cmim.inference import CMIMModel, list_models, load


@pytest.fixture(scope="module", params=list_models())
def models(request: pytest.FixtureRequest, device: str) -> tuple[CMIMModel, CMIMModel]:
    """A shipped model on the device, and on the CPU."""
    return load(request.param, device), load(request.param, "cpu")


def usable(model: CMIMModel, smiles: tuple[str, ...]) -> list[str]:
    return [one for one in smiles[::3] if model.invalid_reason(one) is None]


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    return float(((found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)).min())


@pytest.mark.parametrize("kind", ["mean", "informative"])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 1000])
def test_vectors_in_fp32(
    models: tuple[CMIMModel, CMIMModel], real_smiles: tuple[str, ...], kind: str, batch_size: int | None
) -> None:
    found, expected = models
    smiles = usable(expected, real_smiles)[: 60 if batch_size == 1 else None]
    on_device, on_cpu = found.embed(smiles, kind, batch_size=batch_size), expected.embed(smiles, kind)
    np.testing.assert_allclose(on_device, on_cpu, rtol=0, atol=1e-4 * np.abs(on_cpu).max())
    assert cosine(on_device, on_cpu) > 0.99999


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["mean", "informative"])
def test_vectors_in_half_precision(
    models: tuple[CMIMModel, CMIMModel], real_smiles: tuple[str, ...], kind: str, precision: str, device: str
) -> None:
    found, expected = models
    assert found.name is not None
    smiles = usable(expected, real_smiles)
    on_device = load(found.name, device, precision).embed(smiles, kind)
    assert on_device.dtype == np.float32
    on_cpu = expected.embed(smiles, kind)
    assert cosine(on_device, on_cpu) > 0.99
    assert np.abs(on_device - on_cpu).max() < 0.1 * np.abs(on_cpu).max()


@pytest.mark.filterwarnings("ignore:.*were truncated")
def test_decoded_molecules(models: tuple[CMIMModel, CMIMModel], real_smiles: tuple[str, ...]) -> None:
    found, expected = models
    smiles = usable(expected, real_smiles)[:100]
    latents = expected.embed(smiles, "mean")
    assert np.mean([a == b for a, b in zip(found.decode(latents, max_tokens=80), expected.decode(latents, max_tokens=80))]) > 0.98


@pytest.mark.usefixtures("only_cuda")
def test_a_batch_that_does_not_fit_is_halved(models: tuple[CMIMModel, CMIMModel], real_smiles: tuple[str, ...]) -> None:
    """The process may use so little memory that a batch of 512 does not fit."""
    model, on_cpu = models
    smiles = usable(on_cpu, real_smiles) * 2
    expected = on_cpu.embed(smiles)
    model.embed(smiles[:64])  # allocates what libraries keep
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.embed(smiles, batch_size=512)
    needed = torch.cuda.max_memory_allocated() - before
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    failures = torch.cuda.memory_stats()["num_ooms"]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.8 * needed) / total)
    try:
        found = model.embed(smiles, batch_size=512)
        assert torch.cuda.memory_stats()["num_ooms"] > failures
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
