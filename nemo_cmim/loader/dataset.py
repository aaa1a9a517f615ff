"""Data loaders for training and validation. Item i is batch i, so that workers change only the speed."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
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
from ..types import MicroBatch, ObservedProperties, TokenBatch
from .augment import Augmentation
from .order import BatchOrder, Members

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tokenizers import Vocabulary

    Tokens = Sequence[int] | NDArray[np.integer]

__all__ = ["SmilesBatches", "make_loader", "make_validation_loader", "open_store"]


class SmilesBatches(Dataset[MicroBatch]):
    """Micro-batches of a store by number: item i has the molecules `members_of(i)`, sorted by length and divided into buckets."""

    def __init__(
        self,
        store: TokenStore,
        members_of: Callable[[int], Members],
        augmentation: Augmentation | None,
        *,
        buckets: int,
        with_properties: bool = False,
    ) -> None:
        self.with_properties = with_properties
        self.store = store
        self.members_of = members_of
        self.augmentation = augmentation
        self.buckets = buckets

    def __getitem__(self, number: int) -> MicroBatch:
        members = self.members_of(number)
        stored = self.store.gather(members.indices)
        pairs: Sequence[tuple[Tokens, Tokens]] = [(tokens, tokens) for tokens in stored]
        if self.augmentation is not None:
            with quiet_rdkit():
                molecules = zip(stored, members.epochs.tolist(), members.indices.tolist())
                pairs = [self.augmentation(*molecule) for molecule in molecules]
        order = np.argsort([len(decoder) for _, decoder in pairs], kind="stable")
        parts = np.array_split(order, min(self.buckets, len(order)))
        buckets = tuple(self._collated([pairs[i] for i in part]) for part in parts)
        return MicroBatch(buckets, self._observed(members.indices[order]) if self.with_properties else None)

    def _observed(self, indices: NDArray[np.int64]) -> ObservedProperties:
        return ObservedProperties(*map(torch.from_numpy, self.store.gather_properties(indices)))

    def _collated(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> TokenBatch:
        encoder, decoder = zip(*pairs)
        return collate(decoder, self.store.vocabulary, encoder_tokens=None if self.augmentation is None else encoder)


class _Steps(Sampler[int]):
    """The numbers of all steps from `start`. `len` includes the steps before `start`, as Lightning expects when it resumes."""

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
    with_properties: bool = False,
    pin_memory: bool = False,
) -> DataLoader[MicroBatch]:
    """Micro-batches for training. They do not depend on the number of workers or on interruptions of the run.

    The global batch of a step has `ranks * accumulation` micro-batches. Rank r computes micro-batch a * ranks + r as its a-th, so
    that a step has the same micro-batches on few ranks with accumulation as on many ranks without.

    Args:
        config: The split, and the size of a micro-batch.
        steps: Optimiser steps of the whole run, including those before `start_step`. The loader's `len` is `steps * accumulation`.
        start_step: The first step.
        rank: Data-parallel rank.
        ranks: Number of data-parallel ranks.
        accumulation: Number of micro-batches of a rank in a step.
        vocabulary: The model's vocabulary, which must be that of the data; None: not checked.
        max_tokens: Maximum number of tokens of the model; None: not checked.
        augmentation: Augmentation of the SMILES; None: none.
        with_properties: Also read the observed properties.
        pin_memory: Return batches in page-locked memory, from which copies to a GPU are asynchronous.

    Raises:
        DataError: If the folder cannot be used. See `TokenStore.open`.
        ConfigError: If there are fewer molecules than a global batch needs, or a molecule is longer than `max_tokens`.
    """
    store = open_store(config, vocabulary, max_tokens)
    batch_size = config.batch_size * ranks * accumulation
    order = BatchOrder(len(store), batch_size, seed=config.seed, limit=config.limit, block=config.shuffle_block)
    members_of = functools.partial(_micro_batch, order, rank, ranks, accumulation)
    augmenting = _augmentation(augmentation, config, store, max_tokens)
    batches = SmilesBatches(store, members_of, augmenting, buckets=config.buckets, with_properties=with_properties)
    return _loader(batches, _Steps(start_step * accumulation, steps * accumulation), config.workers, pin_memory)


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
    with_properties: bool = False,
    pin_memory: bool = False,
) -> DataLoader[MicroBatch]:
    """Each molecule once, always in the same micro-batches, which are random samples.

    The sizes of batches differ by at most one molecule, because a small last batch would have few negatives. All ranks have the same
    number of batches.

    Args:
        config: The split, and the maximum batch size of one rank.
        rank: Data-parallel rank.
        ranks: Number of data-parallel ranks.
        vocabulary: The model's vocabulary, which must be that of the data; None: not checked.
        max_tokens: Maximum number of tokens of the model; None: not checked.
        augmentation: See `make_loader`. Each molecule gets the randomized SMILES and the spans of epoch 0.
        with_properties: See `make_loader`.
        pin_memory: See `make_loader`.

    Raises:
        DataError: If the folder cannot be used. See `TokenStore.open`.
        ConfigError: If there are fewer molecules than ranks, or a molecule is longer than `max_tokens`.
    """
    store = open_store(config, vocabulary, max_tokens)
    order = BatchOrder(len(store), ranks, seed=config.seed, limit=config.limit, block=config.shuffle_block)
    indices = order.select(np.arange(order.molecules))  # in the order of the store, which is that of a hash
    count = min(-(-len(indices) // (config.batch_size * ranks)), len(indices) // ranks)  # every rank has molecules of each batch
    members = [Members(batch[rank::ranks], np.zeros_like(batch[rank::ranks])) for batch in np.array_split(indices, count)]
    augmenting = _augmentation(augmentation, config, store, max_tokens)
    batches = SmilesBatches(store, members.__getitem__, augmenting, buckets=config.buckets, with_properties=with_properties)
    return _loader(batches, _Steps(0, len(members)), config.workers, pin_memory)


def open_store(config: DataConfig, vocabulary: Vocabulary | None = None, max_tokens: int | None = None) -> TokenStore:
    """Opens a split and checks that the model can use its molecules.

    Raises:
        DataError: If the folder cannot be used. See `TokenStore.open`.
        ConfigError: If a molecule is longer than `max_tokens`.
    """
    store = TokenStore.open(config.folder, config.split, vocabulary=vocabulary, block=config.shuffle_block)
    longest = max(map(int, store.manifest.splits[config.split]["lengths"]))
    if max_tokens is not None and longest > max_tokens:
        raise ConfigError(
            f"Split {config.split!r} of {config.folder} contains a molecule of {longest} tokens, but the model accepts at "
            f"most {max_tokens}. Prepare the folder with --max-tokens {max_tokens}, or increase network.max_positions."
        )
    return store


def _augmentation(
    augmentation: AugmentationConfig | None, config: DataConfig, store: TokenStore, max_tokens: int | None
) -> Augmentation | None:
    if augmentation is None or augmentation.is_identity:
        return None
    limit = sys.maxsize if max_tokens is None else max_tokens
    return Augmentation(augmentation, store.vocabulary, max_tokens=limit, seed=config.seed)


def _ignore_signals(worker: int) -> None:
    """Makes a worker ignore `PREEMPTION_SIGNALS`, except a SIGTERM from the main process.

    When the interpreter exits while a loader is in use, Python sends SIGTERM to the workers and waits for them without a time limit,
    so that a worker must obey this signal. A Python handler does not know the sender of a signal, and torch's C handler ends the
    worker for every sender. Therefore the signal is blocked, and a thread waits for it. Systems without `sigwaitinfo` (macOS) keep
    torch's handler.
    """
    for number in PREEMPTION_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited by threads that start later
        threading.Thread(target=_exit_on_sigterm_of_main_process, name="end", daemon=True).start()


def _exit_on_sigterm_of_main_process() -> None:
    main = multiprocessing.parent_process()
    assert main is not None, "only workers call this"
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)  # as torch's handler does; not a failure


def _loader(batches: SmilesBatches, steps: _Steps, workers: int, pin_memory: bool) -> DataLoader[MicroBatch]:
    return DataLoader(
        batches,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # drawing the workers' seeds must not change the run's random state
    )
