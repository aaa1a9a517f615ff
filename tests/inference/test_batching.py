"""Batches of molecules, and the weights with which positions are pooled."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_cmim.config import NetworkConfig
from nemo_cmim.inference.batching import BatchLimits, batch_limits, length_sorted_batches, pooling_weights, token_budget_slices

LENGTHS = [5, 1, 9, 1, 30, 2, 9]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_contain_each_molecule_once_sorted_by_length(size: int) -> None:
    batches = list(length_sorted_batches(LENGTHS, size))
    assert all(1 <= len(batch) <= size for batch in batches)
    order = np.concatenate(batches)
    assert order.tolist() == [1, 3, 5, 0, 2, 6, 4], "equal lengths keep their order"
    assert list(length_sorted_batches([], size)) == []


@pytest.mark.parametrize("budget", [1, 12, 20, 10_000])
@pytest.mark.parametrize("molecules", [None, 1, 2])
def test_slices_are_as_large_as_the_limits_allow(budget: int, molecules: int | None) -> None:
    lengths = sorted(LENGTHS)
    slices = list(token_budget_slices(lengths, BatchLimits(512, budget, molecules)))
    assert [i for part in slices for i in range(len(lengths))[part]] == list(range(len(lengths)))

    def is_allowed(start: int, stop: int) -> bool:
        return (stop - start) * (lengths[stop - 1] + 1) <= budget and stop - start <= (molecules or len(lengths))

    for part in slices:
        assert part.stop == part.start + 1 or is_allowed(part.start, part.stop)
        assert part.stop == len(lengths) or not is_allowed(part.start, part.stop + 1)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [[1 / 3] * 3 + [0], [1, 0, 0, 0], [1 / 4] * 4]), ("last", [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])],
)
def test_pooling_weights_cover_the_tokens_and_eos(pooling: str, expected: list[list[float]]) -> None:
    weights = pooling_weights([2, 0, 3], pooling)
    assert weights.shape == (3, 1, 4) and weights.dtype == np.float32
    np.testing.assert_array_equal(weights[:, 0], np.array(expected, dtype=np.float32))


def test_limits_follow_batch_size_encoder_and_device() -> None:
    perceiver, transformer = NetworkConfig(), NetworkConfig(encoder="transformer", posterior="point")
    assert (
        batch_limits(transformer, None, on_gpu=False).encoder_molecules
        < batch_limits(perceiver, None, on_gpu=False).encoder_molecules
    )
    assert batch_limits(perceiver, 3, on_gpu=True)[::2] == (3, 3)
    cpu, gpu = (batch_limits(perceiver, None, on_gpu=on_gpu) for on_gpu in (False, True))
    assert gpu.decoder_tokens > cpu.decoder_tokens and gpu.encoder_molecules > cpu.encoder_molecules
    assert cpu.decoder_molecules is None
