"""Loaders that feed training and validation. Item i is batch i, so workers change nothing but speed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import DataConfig
from ..errors import ConfigError
from ..types import TokenBatch
from .collate import collate
from .order import BatchOrder
from .store import TokenStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tokenizers import Vocabulary

__all__ = ["SmilesBatches", "make_loader", "make_validation_loader"]


class SmilesBatches(Dataset[TokenBatch]):
    """Batches of a store by number: item i is a `TokenBatch` of the molecules that `indices_of(i)` names."""

    def __init__(self, store: TokenStore, indices_of: Callable[[int], NDArray[np.int64]]) -> None:
        self.store = store
        self.indices_of = indices_of

    def __getitem__(self, number: int) -> TokenBatch:
        return collate(self.store.gather(self.indices_of(number)), self.store.vocabulary)


class _Steps(Sampler[int]):
    """The numbers of all steps from `start` on. `len` counts those before `start` too, as Lightning's resume expects."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))


def make_loader(
    config: DataConfig,
    *,
    steps: int,
    start_step: int = 0,
    rank: int = 0,
    ranks: int = 1,
    vocabulary: Vocabulary | None = None,
    max_tokens: int | None = None,
) -> DataLoader[TokenBatch]:
    """Training batches: step i is the same whatever the workers and wherever the run was interrupted.

    Args:
        config: The split, and the batch size of one rank.
        steps: Steps of the whole run, those before `start_step` included; this is the loader's `len`.
        start_step: The step to begin with.
        rank: Data-parallel rank; each takes its own part of the global batch.
        ranks: Number of data-parallel ranks.
        vocabulary: The model's, checked against that of the data.
        max_tokens: Most tokens that the model can take.

    Raises:
        DataError: The folder cannot be used: see `TokenStore.open`.
        ConfigError: Fewer molecules than a global batch needs, or a molecule is longer than `max_tokens`.
    """
    store = _open(config, vocabulary, max_tokens)
    order = BatchOrder(store.lengths, config.batch_size * ranks, seed=config.seed, limit=config.limit)
    indices_of = functools.partial(order.batch_indices, rank=rank, ranks=ranks)
    return _loader(SmilesBatches(store, indices_of), _Steps(start_step, steps), config.workers)


def make_validation_loader(
    config: DataConfig,
    *,
    rank: int = 0,
    ranks: int = 1,
    vocabulary: Vocabulary | None = None,
    max_tokens: int | None = None,
) -> DataLoader[TokenBatch]:
    """Each molecule once, from short to long, always in the same batches.

    Batches differ in size by one molecule at most, as a small last one would have few negatives. All ranks get equally many.

    Args:
        config: The split, and the largest batch of one rank.
        rank: Data-parallel rank.
        ranks: Number of data-parallel ranks.
        vocabulary: The model's, checked against that of the data.
        max_tokens: Most tokens that the model can take.

    Raises:
        DataError: The folder cannot be used: see `TokenStore.open`.
        ConfigError: Fewer molecules than ranks, or a molecule is longer than `max_tokens`.
    """
    store = _open(config, vocabulary, max_tokens)
    order = BatchOrder(store.lengths, ranks, seed=config.seed, limit=config.limit)
    indices = order.select(np.arange(order.molecules))
    indices = indices[np.lexsort((indices, store.lengths[indices]))]
    count = min(-(-len(indices) // (config.batch_size * ranks)), len(indices) // ranks)  # no rank's part is empty
    batches = np.array_split(indices, count)
    return _loader(SmilesBatches(store, [b[rank::ranks] for b in batches].__getitem__), _Steps(0, len(batches)), config.workers)


def _open(config: DataConfig, vocabulary: Vocabulary | None, max_tokens: int | None) -> TokenStore:
    store = TokenStore.open(config.folder, config.split, vocabulary=vocabulary)
    longest = max(map(int, store.manifest.splits[config.split]["lengths"]))
    if max_tokens is not None and longest > max_tokens:
        raise ConfigError(
            f"Split {config.split!r} of {config.folder} holds a molecule of {longest} tokens, but the model takes at "
            f"most {max_tokens}: prepare it with --max-tokens {max_tokens}, or raise network.max_positions."
        )
    return store


def _loader(batches: SmilesBatches, steps: _Steps, workers: int) -> DataLoader[TokenBatch]:
    return DataLoader(
        batches,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: drawing the workers' seeds must not move the run's random numbers
    )
