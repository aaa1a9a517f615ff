"""A batch that does not fit into the memory of a GPU: the batches are halved until they fit, and the vectors are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.models import CMIMNetwork

SMILES = ["C" * n + "O" for n in range(1, 24)]


def with_memory_for(monkeypatch: pytest.MonkeyPatch, method: str, molecules: int) -> list[int]:
    """Makes the network raise torch's error for larger batches. Returns the sizes of all batches that it is given."""
    original, sizes = getattr(CMIMNetwork, method), []

    def limited(self: CMIMNetwork, first: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(first))
        if len(first) > molecules:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, first, *rest)

    monkeypatch.setattr(CMIMNetwork, method, limited)
    return sizes


@pytest.mark.parametrize("kind", ["mean", "informative"])
@pytest.mark.parametrize("method", ["encode", "layer_states"])
def test_batches_are_halved_once(model: CMIMModel, monkeypatch: pytest.MonkeyPatch, kind: str, method: str) -> None:
    expected = model.embed(SMILES, kind, batch_size=9)
    sizes = with_memory_for(monkeypatch, method, 5)
    done: list[int] = []
    found = model.embed(SMILES, kind, batch_size=9, progress=lambda now, _: done.append(now))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert done[-1] == len(SMILES)
    if method == "encode" or kind == "informative":
        assert sizes[0] == 9 and max(sizes[1:]) <= 5 and sum(size > 5 for size in sizes) == 1


def test_batches_are_halved_until_they_fit(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.embed(SMILES, "mean", batch_size=16)
    sizes = with_memory_for(monkeypatch, "encode", 3)
    np.testing.assert_allclose(model.embed(SMILES, "mean", batch_size=16), expected, rtol=1e-4, atol=1e-5)
    assert sizes[:3] == [16, 8, 4] and sum(size > 3 for size in sizes) == 3


@pytest.mark.parametrize("method", ["encode", "layer_states"])
def test_samples_are_those_of_the_whole_batch(model: CMIMModel, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The noise of a batch is drawn again for its halves."""
    expected = model.embed(SMILES, batch_size=9, sample=True, seed=0)
    with_memory_for(monkeypatch, method, 2)
    np.testing.assert_allclose(model.embed(SMILES, batch_size=9, sample=True, seed=0), expected, rtol=1e-3, atol=1e-5)


def test_if_one_molecule_is_too_much_the_error_says_what_to_do(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory_for(monkeypatch, "encode", 0)
    with pytest.raises(
        ConfigError, match=r"does not suffice for a molecule of \d+ tokens\. Free memory of the GPU, or pass device"
    ):
        model.embed(SMILES, "mean", batch_size=9)
