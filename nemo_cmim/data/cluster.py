"""Runs tasks on Dask: in this process, in processes of this machine, or on a cluster whose scheduler is given."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, DataError

__all__ = ["Workers", "versions", "workers"]

T = TypeVar("T")

_PACKAGES = ("nemo_cmim", "rdkit", "megatron-core")  # those that decide about the bytes


def versions() -> dict[str, str]:
    """Versions of the packages that shape prepared data."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


class Workers:
    """Where tasks run; made by `workers`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, task: Callable[[T], None], items: Sequence[T]) -> Iterator[T]:
        """Runs `task(item)` for each item, and yields the items as they are done, in any order.

        A task that a worker dies of is given to another, three times.

        Raises:
            DataError: Four workers died of one task. What a task raises goes through.
        """
        import dask.bag

        if not items:
            return
        if self._client is None:
            for item in items:
                dask.bag.from_sequence([item]).map(task).compute(scheduler="synchronous")
                yield item
            return
        import distributed

        tasks = dask.bag.from_sequence(items, npartitions=len(items)).map(task).to_delayed()
        futures = dict(zip(self._client.compute(tasks), items))
        try:
            for future in distributed.as_completed(futures):
                future.result()
                yield futures[future]
        except distributed.KilledWorker as error:
            raise DataError(
                f"Workers died again and again ({error}). If their memory ran out, use fewer processes. What is finished is kept: "
                "run again to go on."
            ) from error
        finally:
            self._client.cancel(list(futures))


@contextmanager
def workers(processes: int, scheduler: str | None, folder: Path) -> Iterator[Workers]:
    """Starts workers, or connects to those of a cluster.

    Args:
        processes: Processes of this machine; 1 does the work in this one.
        scheduler: Address of a `dask.distributed` scheduler, such as `tcp://node0:8786`, in place of processes here.
        folder: A folder that all workers must see.

    Raises:
        ConfigError: Dask is not installed, the scheduler does not answer, or a worker has other versions or does not see the folder.
    """
    try:
        import dask  # noqa: F401
        import distributed
    except ImportError as error:
        raise ConfigError(f"Preparing data needs {error.name}, which is not installed: pip install 'nemo_cmim[data]'.") from error
    if scheduler is None and processes == 1:
        yield Workers(None)
        return
    if scheduler is None:
        cluster = distributed.LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client:
            yield Workers(client)
        return
    try:
        client = distributed.Client(scheduler)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"No Dask scheduler answers at {scheduler} ({error}). Start one: dask scheduler; dask worker ADDRESS."
        ) from error
    with client:
        _check_workers(client, scheduler, folder)
        yield Workers(client)


def _check_workers(client: Any, scheduler: str, folder: Path) -> None:
    client.wait_for_workers(1, timeout=60)
    for worker, (found, sees_folder) in client.run(_describe, folder).items():
        if not sees_folder:
            raise ConfigError(
                f"Worker {worker} of {scheduler} does not see {folder}: all need one file system under the same paths."
            )
        if found != versions():
            raise ConfigError(f"Worker {worker} of {scheduler} has {found}, but here is {versions()}: install the same everywhere.")


def _describe(folder: Path) -> tuple[dict[str, str], bool]:
    return versions(), folder.is_dir()
