"""The evaluation engine: blocks that are kept, so that an interrupted evaluation resumes, and measured in parallel.

A block holds the predictions of one set of features on one data set. It is written atomically when it is complete. The name of its
file has a digest of everything that its numbers depend on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path

import pandas as pd

from ..downstream import RegressionData
from ..files import atomic_write, sha256_of
from ..inference.shipped import resolve
from ..inference.threads import thread_count
from .digest import code_digest, data_digest, digest_of
from .features import FeatureSet
from .measure import Protocol, measure

__all__ = ["block_path", "measure_all"]

Block = tuple[FeatureSet, RegressionData, Protocol, Path]


def block_path(folder: Path, name: str, digest: str, suffix: str) -> Path:
    """Where a block is kept: a readable name, and the first 12 digits of the digest of what the block depends on."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", name)[:100]
    return folder / f"{readable}-{digest[:12]}{suffix}"


def measure_all(
    features: Sequence[FeatureSet],
    sets: Sequence[RegressionData],
    protocol: Protocol,
    folder: Path,
    *,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """`measure` of each set of features on each data set. Blocks that `folder` already has are read.

    Args:
        features: Sets of features, each under a different name.
        sets: Data sets, each under a different name.
        protocol: Splits, seeds and heads.
        folder: Folder of the kept blocks; created if it does not exist.
        jobs: Number of blocks measured at the same time, each in its own process. With 1 all are measured in this process.
        say: Called with a line of text after each block.

    Returns:
        The predictions of all blocks, with the columns of `measure`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = {one.name: _digests(one) for one in features}
    code, contents = code_digest(__name__), {one.name: data_digest(one) for one in sets}
    paths, missing = {}, {}
    for data in sets:
        for one in features:
            content = (replace(one, model="", vectors=""), given[one.name], data.name, contents[data.name])  # not the paths
            digest = digest_of(code, _device(), protocol, *content)
            path = paths[data.name, one.name] = block_path(folder, f"{data.name} {one.name}", digest, ".parquet")
            if not path.exists():
                missing[path] = (one, data, protocol, path)
    todo = sorted(
        missing.values(), key=lambda block: -len(block[1])
    )  # the longest first, so that all processes end at about the same time
    start, done = time.monotonic(), len(paths) - len(todo)
    if done:
        say(f"{done} of {len(paths)} blocks were measured before")
    with closing(_measured(todo, jobs)) as measured:
        for name in measured:
            done += 1
            say(f"{done}/{len(paths)} {name}, after {time.monotonic() - start:.0f} s")
    return pd.concat([pd.read_parquet(path) for path in paths.values()], ignore_index=True)


def _digests(features: FeatureSet) -> list[str]:
    """Of the file of vectors, or of the embeddings; for random weights, of those of the model whose settings are used."""
    if features.vectors:
        return [sha256_of(Path(features.vectors))]
    return [resolve(features.model).fingerprint(*spec) for spec in features.embeddings]


def _device() -> str:
    """The type of device on which the MLP trains."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _measured(todo: Sequence[Block], jobs: int) -> Generator[str, None, None]:
    """Measures blocks; gives the name of each when it is written."""
    if jobs == 1 or not todo:
        yield from map(_keep, todo)
        return
    others = active_children()
    threads = max(1, thread_count() // jobs)  # the processes share the cores
    with _environment("OMP_NUM_THREADS", str(threads)), ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_keep, block) for block in todo]):
                yield future.result()
        except BaseException:  # also if the caller fails or is interrupted: no process may continue alone
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()).difference(others):
                process.terminate()
            raise


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Context in which new processes have this variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _keep(block: Block) -> str:
    features, data, protocol, path = block
    predictions = measure(features, data, protocol)
    with atomic_write(path) as staging:
        predictions.to_parquet(staging, index=False)
    return f"{data.name}, {features.name}"
