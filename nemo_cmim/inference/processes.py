"""Embeds in several processes on this machine. They share the weights of the model in memory, and the GPUs: one for each process."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from joblib.externals.loky.process_executor import ProcessPoolExecutor
from numpy.typing import NDArray

from ..arguments import check_integer
from ..errors import ConfigError
from .batching import Progress, length_sorted_batches
from .capabilities import EmbeddingSpec
from .embedding import EmbeddingModel
from .inputs import COLLECT, InputOptions, TokenizedMolecules, warn_of_invalid
from .shared_model import read_shared, write_shared
from .threads import limit_threads, thread_count

__all__ = ["ROWS_AT_ONCE", "Workers", "embed_in_processes", "process_count"]

ROWS_AT_ONCE = 1024
"""Molecules that a process canonicalises in one task. No process is started for fewer of them."""

_MODEL = "model"
_model: EmbeddingModel  # of a worker process


def process_count(n_jobs: int | None) -> int:
    """The number of processes for `n_jobs` as in scikit-learn: None is 1 or that of `joblib.parallel_config`, -1 is one on each core.

    Raises:
        ConfigError: If it is 0 or not an integer.
    """
    check_integer("n_jobs", n_jobs, -(2**31), optional=True)
    if n_jobs == 0:
        raise ConfigError("n_jobs must not be 0. Pass a number of processes, or -1 for one on each core.")
    return int(effective_n_jobs(n_jobs))


class Workers:
    """Processes with a model; see `opened`."""

    def __init__(self, executor: ProcessPoolExecutor, processes: int) -> None:
        self._executor, self._processes = executor, processes

    def submit(self, method: str, *arguments: Any, **options: Any) -> Future[Any]:
        """Calls a method of the model in one of the processes."""
        return self._executor.submit(_call, method, arguments, options)

    def in_order(self, tasks: Iterable[tuple[Any, Future[Any] | None]]) -> Iterator[tuple[Any, Any]]:
        """Yields each item and the result that belongs to it, or None, in order. Only a few tasks are waiting at a time.

        Raises:
            ConfigError: If a process was ended from outside.
        """
        waiting: deque[tuple[Any, Future[Any] | None]] = deque()
        for task in tasks:
            waiting.append(task)
            if len(waiting) > 2 * self._processes:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())

    @classmethod
    @contextmanager
    def opened(cls, model: EmbeddingModel, processes: int) -> Iterator[Workers]:
        """Context with processes, which start at the first task and share the threads of this one. All are ended if the block fails."""
        threads = max(1, thread_count() // processes)
        with tempfile.TemporaryDirectory(prefix="nemo_cmim-") as folder:
            try:
                write_shared(model, Path(folder, _MODEL))
            except OSError as error:
                raise ConfigError(
                    f"The weights, which the processes share, cannot be written to {folder}: {error.strerror or error}. Set the "
                    "environment variable TMPDIR to a folder with more space, or pass n_jobs=1."
                ) from error
            executor = ProcessPoolExecutor(processes, initializer=_start, initargs=(folder, threads, os.getpid()))
            try:
                yield cls(executor, processes)
            except BaseException:
                executor.shutdown(kill_workers=True)
                raise
            executor.shutdown()


def embed_in_processes(
    model: EmbeddingModel,
    rows: Sequence[Any],
    spec: EmbeddingSpec,
    options: InputOptions,
    batch_size: int | None,
    processes: int,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The vectors of `CMIMModel.embed`, float32 [N, width]. The batches are those of one process, so that the vectors are the same.

    Args:
        model: The model.
        rows: N SMILES or RDKit molecules.
        spec: The embedding.
        options: How the molecules are read; `on_invalid` is "raise" or "nan".
        batch_size: See `CMIMModel.embed`, also for `progress` and errors.
        processes: Number of processes.
        progress: See `CMIMModel.embed`.
    """
    check_integer("batch_size", batch_size, optional=True)
    with Workers.opened(model, processes) as workers:
        inputs = _tokenize(model, workers, rows, options)
        limits = model._limits(batch_size)
        found = np.full((len(inputs.tokens) + 1, spec.width), np.nan, dtype=np.float32)
        batches = length_sorted_batches([len(row) for row in inputs.tokens], limits.encoder_molecules)
        tasks = ((batch, workers.submit("_vectors", _all_of(inputs.tokens, batch), spec, batch_size)) for batch in batches)
        done = 0
        for batch, vectors in workers.in_order(tasks):
            found[batch] = vectors
            done += len(batch)
            if progress:
                progress(done, len(inputs.tokens))
    if options.on_invalid == "nan":
        warn_of_invalid(inputs.invalid, len(rows), stacklevel=4)
    return found[inputs.molecule_of_row]


def _tokenize(model: EmbeddingModel, workers: Workers, rows: Sequence[Any], options: InputOptions) -> TokenizedMolecules:
    """`inputs.tokenize` in the processes, without a warning."""
    if options.on_invalid == "nan":
        options = options._replace(on_invalid=COLLECT)
    if not all(isinstance(row, str) for row in rows):
        return model._tokenize(rows, options)  # a pickle of an RDKit molecule is not always the same molecule
    starts = range(0, len(rows), ROWS_AT_ONCE)
    tasks = (
        (
            start,
            workers.submit(
                "_tokenize", rows[start : start + ROWS_AT_ONCE], options._replace(first_index=options.first_index + start)
            ),
        )
        for start in starts
    )
    merged = TokenizedMolecules([], np.full(len(rows), -1), {}, {})
    index_of: dict[tuple[int, ...], int] = {}
    for start, part in workers.in_order(tasks):
        place = np.array([index_of.setdefault(tuple(ids), len(index_of)) for ids in part.tokens] + [-1])
        merged.molecule_of_row[start : start + len(part.molecule_of_row)] = place[part.molecule_of_row]
        merged.invalid.update({start + i: reason for i, reason in part.invalid.items()})
    merged.tokens.extend(map(list, index_of))
    return merged


def _all_of(tokens: Sequence[list[int]], batch: NDArray[np.int64]) -> TokenizedMolecules:
    return TokenizedMolecules([tokens[i] for i in batch], np.arange(len(batch)), {}, {})


def _start(folder: str, threads: int, parent: int) -> None:
    global _model
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    limit_threads(threads)
    _model = read_shared(Path(folder, _MODEL))
    _model.use_device_of(_claimed_number(folder))


def _claimed_number(folder: str) -> int:
    """Number of this process among those of the folder, counted from 0."""
    for number in count():
        with suppress(FileExistsError), Path(folder, str(number)).open("x"):
            return number
    raise AssertionError


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, also if that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return getattr(_model, method)(*arguments, **options)


def _result(item: Any, future: Future[Any] | None) -> tuple[Any, Any]:
    try:
        return item, None if future is None else future.result()
    except BrokenProcessPool as error:
        raise ConfigError(
            "A worker process was ended from outside, or could not start; the memory may not suffice. Pass a smaller n_jobs."
        ) from error
