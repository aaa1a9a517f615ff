"""Loaders that feed training and validation. Item i is batch i, so workers change nothing but speed."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import AugmentationConfig, DataConfig
from ..errors import ConfigError
from ..molecules import quiet_rdkit
from ..signals import PREEMPTION_SIGNALS
from ..store.token_store import TokenStore
from ..tokenizers.collate import collate
from ..types import TokenBatch
from .augment import Augmentation
from .order import BatchOrder, Members

if TYPE_CHECKING:
    from ..tokenizers import Vocabulary

__all__ = ["SmilesBatches", "make_loader", "make_validation_loader", "open_store"]


class SmilesBatches(Dataset[TokenBatch]):
    """Batches of a store by number: item i is a `TokenBatch` of the molecules that `members_of(i)` names."""

    def __init__(self, store: TokenStore, members_of: Callable[[int], Members], augmentation: Augmentation | None) -> None:
        self.store = store
        self.members_of = members_of
        self.augmentation = augmentation

    def __getitem__(self, number: int) -> TokenBatch:
        members = self.members_of(number)
        tokens = self.store.gather(members.indices)
        if self.augmentation is None:
            return collate(tokens, self.store.vocabulary)
        with quiet_rdkit():
            pairs = [self.augmentation(*molecule) for molecule in zip(tokens, members.epochs.tolist(), members.indices.tolist())]
        encoder, decoder = zip(*pairs)
        return collate(decoder, self.store.vocabulary, encoder_tokens=encoder)


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
    accumulation: int = 1,
    vocabulary: Vocabulary | None = None,
    max_tokens: int | None = None,
    augmentation: AugmentationConfig | None = None,
) -> DataLoader[TokenBatch]:
    """Micro-batches of training: the same whatever the workers and wherever the run was interrupted.

    A step's global batch is cut into `ranks * accumulation` micro-batches, and number a * ranks + r of them is what rank r computes as
    its a-th. So a step sees the same micro-batches on few ranks that accumulate as on many that do not.

    Args:
        config: The split, and the size of a micro-batch.
        steps: Optimiser steps of the whole run, those before `start_step` included; times `accumulation` it is the loader's `len`.
        start_step: The step to begin with.
        rank: Data-parallel rank.
        ranks: Number of data-parallel ranks.
        accumulation: Micro-batches of a rank in a step.
        vocabulary: The model's, checked against that of the data.
        max_tokens: Most tokens that the model can take.
        augmentation: How strings are changed; None leaves them as they are.

    Raises:
        DataError: The folder cannot be used: see `TokenStore.open`.
        ConfigError: Fewer molecules than a global batch needs, or a molecule is longer than `max_tokens`.
    """
    store = open_store(config, vocabulary, max_tokens)
    batch_size = config.batch_size * ranks * accumulation
    order = BatchOrder(store.lengths, batch_size, seed=config.seed, limit=config.limit, block=config.shuffle_block)
    members_of = functools.partial(_micro_batch, order, rank, ranks, accumulation)
    batches = SmilesBatches(store, members_of, _augmentation(augmentation, config, store, max_tokens))
    return _loader(batches, _Steps(start_step * accumulation, steps * accumulation), config.workers)


def _micro_batch(order: BatchOrder, rank: int, ranks: int, accumulation: int, number: int) -> Members:
    step, turn = divmod(number, accumulation)
    return order.members(step, turn * ranks + rank, ranks * accumulation)


def make_validation_loader(
    config: DataConfig,
    *,
    rank: int = 0,
    ranks: int = 1,
    vocabulary: Vocabulary | None = None,
    max_tokens: int | None = None,
    augmentation: AugmentationConfig | None = None,
) -> DataLoader[TokenBatch]:
    """Each molecule once, from short to long, always in the same batches. With blocks, from short to long in each window of 64 batches.

    Batches differ in size by one molecule at most, as a small last one would have few negatives. All ranks get equally many.

    Args:
        config: The split, and the largest batch of one rank.
        rank: Data-parallel rank.
        ranks: Number of data-parallel ranks.
        vocabulary: The model's, checked against that of the data.
        max_tokens: Most tokens that the model can take.
        augmentation: As in training; each molecule gets the spelling and the spans of epoch 0.

    Raises:
        DataError: The folder cannot be used: see `TokenStore.open`.
        ConfigError: Fewer molecules than ranks, or a molecule is longer than `max_tokens`.
    """
    store = open_store(config, vocabulary, max_tokens)
    order = BatchOrder(store.lengths, ranks, seed=config.seed, limit=config.limit, block=config.shuffle_block)
    indices = order.select(np.arange(order.molecules))
    window = 64 * config.batch_size * ranks if config.shuffle_block > 1 else len(indices)  # else each batch would need every block
    indices = indices[np.lexsort((indices, store.lengths[indices], np.arange(len(indices)) // window))]
    count = min(-(-len(indices) // (config.batch_size * ranks)), len(indices) // ranks)  # no rank's part is empty
    members = [Members(part[rank::ranks], np.zeros_like(part[rank::ranks])) for part in np.array_split(indices, count)]
    batches = SmilesBatches(store, members.__getitem__, _augmentation(augmentation, config, store, max_tokens))
    return _loader(batches, _Steps(0, len(members)), config.workers)


def open_store(config: DataConfig, vocabulary: Vocabulary | None = None, max_tokens: int | None = None) -> TokenStore:
    """The store of a split, whose molecules fit the model.

    Raises:
        DataError: The folder cannot be used: see `TokenStore.open`.
        ConfigError: A molecule is longer than `max_tokens`.
    """
    store = TokenStore.open(config.folder, config.split, vocabulary=vocabulary, block=config.shuffle_block)
    longest = max(map(int, store.manifest.splits[config.split]["lengths"]))
    if max_tokens is not None and longest > max_tokens:
        raise ConfigError(
            f"Split {config.split!r} of {config.folder} holds a molecule of {longest} tokens, but the model takes at "
            f"most {max_tokens}: prepare it with --max-tokens {max_tokens}, or raise network.max_positions."
        )
    return store


def _augmentation(
    augmentation: AugmentationConfig | None, config: DataConfig, store: TokenStore, max_tokens: int | None
) -> Augmentation | None:
    if augmentation is None or augmentation.is_identity:
        return None
    limit = sys.maxsize if max_tokens is None else max_tokens
    return Augmentation(augmentation, store.vocabulary, max_tokens=limit, seed=config.seed)


def _outlive_signals(worker: int) -> None:
    """Makes a worker ignore `PREEMPTION_SIGNALS`, but for a SIGTERM of the main process.

    With that one, Python ends the workers of a loader that is still in use when the interpreter exits, and then waits for them for
    ever. A handler in Python is not told who sent a signal, and torch's in C dies of any other sender's. So the signal is blocked and
    waited for. Where a system cannot do that (macOS), torch's handler stays.
    """
    for number in PREEMPTION_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads that begin later inherit it
        threading.Thread(target=_end_with_the_main_process, name="end", daemon=True).start()


def _end_with_the_main_process() -> None:
    main = multiprocessing.parent_process()
    assert main is not None, "this is a worker"
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)  # as torch's handler does: no failure


def _loader(batches: SmilesBatches, steps: _Steps, workers: int) -> DataLoader[TokenBatch]:
    return DataLoader(
        batches,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_outlive_signals,
        generator=torch.Generator(),  # its own: drawing the workers' seeds must not move the run's random numbers
    )
