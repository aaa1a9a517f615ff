from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError
from nemo_cmim.loader.order import BatchOrder, permute, permute_blocks

MOLECULES = 5000


def indices(order: BatchOrder, step: int, micro_batch: int = 0, micro_batches: int = 1) -> np.ndarray:
    return order.members(step, micro_batch, micro_batches).indices


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 99, 100, 101, 1023, 1024, 1025, 4096, 65_537, 100_003])
def test_permute_is_one_to_one(size: int) -> None:
    image = permute(np.arange(size), size, 7, "epoch", 0)
    np.testing.assert_array_equal(np.sort(image), np.arange(size))


def test_permute_depends_on_every_element_of_the_key() -> None:
    images = {permute(np.arange(50), 50, seed, what, epoch).tobytes() for seed in (-1, 0, 1) for what in "ab" for epoch in range(5)}
    assert len(images) == 3 * 2 * 5


def test_permute_maps_single_positions() -> None:
    image = permute(np.arange(1000), 1000, 3)
    for positions in np.array_split(np.random.default_rng(0).permutation(1000), 7):
        np.testing.assert_array_equal(permute(positions, 1000, 3), image[positions])


def test_permute_looks_random() -> None:
    """Every value is equally likely at every position, and neighbours do not stay together."""
    counts = np.zeros((7, 7))
    for key in range(1400):
        counts[np.arange(7), permute(np.arange(7), 7, key)] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 36 + 5 * np.sqrt(2 * 36)  # chi squared with 36 degrees of freedom
    image = permute(np.arange(100_000), 100_000, 0)
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(100_000), image)[0, 1]) < 0.02


def test_permute_handles_ten_billion_positions() -> None:
    image = permute(np.arange(10_000_000_000 - 1000, 10_000_000_000), 10_000_000_000, 0)
    assert len(np.unique(image)) == 1000
    assert image.min() >= 0 and image.max() < 10_000_000_000
    assert image.std() / 10_000_000_000 == pytest.approx(12**-0.5, abs=0.03)


def test_permute_is_the_same_on_every_machine() -> None:
    """The values of the first release. A change would make resumed runs see different molecules."""
    assert permute(np.arange(8), 8, 0, "epoch", 1).tolist() == [5, 0, 2, 6, 7, 4, 3, 1]


def test_permute_is_one_to_one_at_ten_billion() -> None:
    """No two of 600,000 images are the same; of a random function, 18 would be."""
    size = 10_000_000_000
    positions = np.random.default_rng(0).choice(size // 3000, 600_000, replace=False) * 3000 + np.arange(600_000) % 3000
    image = permute(positions, size, 5, "epoch", 2)
    assert len(np.unique(image)) == len(np.unique(positions)) == 600_000
    assert image.min() >= 0 and image.max() < size


@pytest.mark.parametrize("block", [1, 2, 3, 7, 16, 49, 50, 51, 1000])
@pytest.mark.parametrize("size", [1, 2, 48, 49, 50, 51, 98, 147, 1000])
def test_permuted_blocks_are_one_to_one_and_stay_together(size: int, block: int) -> None:
    image = permute_blocks(np.arange(size), size, block, 7, "epoch", 0)
    np.testing.assert_array_equal(np.sort(image), np.arange(size))
    breaks = int((np.diff(image) != 1).sum())
    assert breaks <= -(-size // block) - 1
    np.testing.assert_array_equal(permute_blocks(np.arange(size)[::-1], size, block, 7, "epoch", 0), image[::-1])


def test_the_short_block_can_be_anywhere() -> None:
    places = {int(np.argmax(permute_blocks(np.arange(95), 95, 10, key))) for key in range(200)}
    assert places == {10 * before + 4 for before in range(10)}


def test_permuted_blocks_at_ten_billion() -> None:
    size, block = 10_000_000_123, 4096
    positions = np.arange(size - 50_000_000, size, 101)
    image = permute_blocks(positions, size, block, 0)
    assert len(np.unique(image)) == len(positions) and image.min() >= 0 and image.max() < size
    assert len(np.unique(image // block)) >= 50_000_000 // block - 2


@pytest.mark.parametrize(("limit", "digest"), [(None, "e002c165be5eec49"), (333, "050757227553b8a0")])
def test_batches_are_the_same_on_every_machine(limit: int | None, digest: str) -> None:
    """Without blocks. A change would make resumed runs see different molecules; raise the order version of checkpoints then."""
    order = BatchOrder(MOLECULES, 48, seed=3, limit=limit)
    found = hashlib.sha256()
    for step in (0, 1, 63, 64, 103, 104, 105, 5000, 10**7):
        for micro_batch in (0, 1):
            for field in order.members(step, micro_batch, 2):
                found.update(field.astype("<i8").tobytes())
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize("block", [1, 8])
@pytest.mark.parametrize(("molecules", "batch_size"), [(5000, 50), (4999, 50), (100, 100), (101, 64)])
def test_every_molecule_is_seen_once_per_epoch(molecules: int, batch_size: int, block: int) -> None:
    """After the batches that begin in epochs 0 to e, every molecule was seen e + 1 times, except those taken early by the last batch."""
    order = BatchOrder(molecules, batch_size, block=block)
    seen, step = np.zeros(molecules, int), 0
    for epoch in range(5):
        while step * batch_size < (epoch + 1) * molecules:
            np.add.at(seen, indices(order, step), 1)
            step += 1
        extra = step * batch_size - (epoch + 1) * molecules
        assert seen.min() == epoch + 1
        assert (seen == epoch + 2).sum() == extra < batch_size
        assert seen.max() <= epoch + 2


def test_epochs_and_seeds_differ() -> None:
    first, second = (BatchOrder(MOLECULES, 500, seed=seed) for seed in (0, 1))
    batches = [frozenset(indices(order, step).tolist()) for order in (first, second) for step in range(20)]
    assert len(set(batches)) == 40


@pytest.mark.parametrize("block", [1, 8])
def test_steps_can_be_computed_in_any_order(block: int) -> None:
    steps = np.random.default_rng(1).permutation(150)
    in_order = [indices(BatchOrder(MOLECULES, 64, block=block), step) for step in range(150)]
    jumping = BatchOrder(MOLECULES, 64, block=block)
    for step in steps:
        np.testing.assert_array_equal(indices(jumping, int(step)), in_order[step])


@pytest.mark.parametrize("micro_batches", [1, 2, 8])
def test_micro_batches_read_different_blocks(micro_batches: int) -> None:
    """In a window of 64 batches, each micro-batch needs few blocks."""
    order = BatchOrder(MOLECULES, 16, block=32)
    windows = [[indices(order, step, number, micro_batches) for step in range(64)] for number in range(micro_batches)]
    blocks = [np.unique(np.concatenate(window) // 32) for window in windows]
    assert max(map(len, blocks)) <= 64 * 16 // micro_batches // 32 + 2
    assert len(np.unique(np.concatenate([np.concatenate(window) for window in windows]))) == 64 * 16


@pytest.mark.parametrize("block", [1, 50])
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_micro_batches_are_random_samples(micro_batches: int, block: int) -> None:
    """A property of molecules that is random along the store, such as the length, has the same mean and spread in every micro-batch."""
    length = np.random.default_rng(0).normal(40, 10, MOLECULES)
    order = BatchOrder(MOLECULES, 64 * micro_batches, block=block)
    batches = [indices(order, step, m, micro_batches) for step in range(150 // micro_batches) for m in range(micro_batches)]
    means, deviations = (np.array([f(length[batch]) for batch in batches]) for f in (np.mean, np.std))
    assert means.mean() == pytest.approx(40, abs=0.5)
    assert means.std() == pytest.approx(10 / 64**0.5, rel=0.3)  # the standard error of a mean of 64
    assert deviations.mean() == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_divide_each_batch(ranks: int) -> None:
    order = BatchOrder(MOLECULES, 64)
    for step in (0, 17, 99, 1000):
        by_rank = [indices(order, step, rank, ranks) for rank in range(ranks)]
        assert set(map(len, by_rank)) == {64 // ranks}
        np.testing.assert_array_equal(np.concatenate(by_rank), indices(order, step))
        assert len(np.unique(np.concatenate(by_rank))) == 64


def test_a_limit_selects_the_same_random_molecules_in_every_epoch() -> None:
    order = BatchOrder(MOLECULES, 50, limit=100, seed=3)
    epochs = [set(np.concatenate([indices(order, 2 * epoch + step) for step in (0, 1)]).tolist()) for epoch in range(4)]
    assert len(epochs[0]) == 100
    assert all(epoch == epochs[0] for epoch in epochs)
    assert max(epochs[0]) > 4000
    assert set(order.select(np.arange(100)).tolist()) == epochs[0]
    assert set(BatchOrder(MOLECULES, 50, limit=100, seed=4).select(np.arange(100)).tolist()) != epochs[0]
    assert BatchOrder(MOLECULES, 50, limit=10**9).molecules == MOLECULES


@pytest.mark.parametrize("block", [1, 8])
def test_a_molecule_is_rarely_twice_in_a_batch(block: int) -> None:
    """It would be its own negative in the contrastive term."""
    order = BatchOrder(1000, 96, block=block)
    doubles = sum(96 - len(np.unique(indices(order, step))) for step in range(500))
    assert doubles / (500 * 96) < 0.01


def test_invalid_batch_sizes() -> None:
    with pytest.raises(ConfigError, match=r"batch has 65 molecules, but the data have only 64\. Reduce batch_size"):
        BatchOrder(64, 65)
    with pytest.raises(ConfigError, match="have only 10"):
        BatchOrder(MOLECULES, 65, limit=10)
    with pytest.raises(ConfigError, match="64 molecules cannot be divided into 3 equal micro-batches"):
        indices(BatchOrder(MOLECULES, 64), 0, 0, 3)


def test_the_cost_does_not_depend_on_the_split() -> None:
    """Ten billion molecules: the index of each would take 80 GB."""
    order = BatchOrder(10**10, 256)
    batches = [indices(order, step) for step in itertools.chain(range(3), [10**7])]
    assert len(np.unique(np.concatenate(batches))) > 4 * 256 - 3
