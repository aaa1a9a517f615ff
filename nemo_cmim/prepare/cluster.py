"""Runs tasks on Dask: in this process, in processes of this machine, or on a cluster whose scheduler is given."""

from __future__ import annotations

import functools
import importlib.metadata
import multiprocessing
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, DataError

__all__ = ["Workers", "versions", "workers"]

T = TypeVar("T")

_BAG = 256  # tasks that are given to Dask at a time: a bag costs more for each, the more there are
_PATIENCE = 60  # seconds to wait for a cluster's first worker
_GUARD = """A script that prepares data in several processes must do so under `if __name__ == "__main__":`, or with processes=1."""
_PACKAGES = ("nemo_cmim", "rdkit")  # those that decide about the bytes


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
            DataError: Four workers died of one task, or the scheduler is gone. What a task raises goes through.
        """
        if self._client is None:
            for item in items:
                _bag([item], task).compute(scheduler="synchronous")
                yield item
            return
        import distributed

        futures: dict[Any, T] = {}
        for begin in range(0, len(items), _BAG):
            some = items[begin : begin + _BAG]
            futures.update(zip(self._client.compute(_bag(some, task).to_delayed()), some))
        try:
            for future in distributed.as_completed(futures):
                future.result()
                yield futures[future]
        except distributed.KilledWorker as error:
            raise DataError(
                f"Workers died again and again ({error}). If their memory ran out, use fewer processes. What is finished is kept: "
                "run again to go on."
            ) from error
        except distributed.CancelledError as error:
            raise DataError(
                f"The Dask scheduler is gone ({error}). What is finished is kept: start it, and run again to go on."
            ) from error
        finally:
            self._client.cancel(list(futures))


def _bag(items: Sequence[T], task: Callable[[T], None]) -> Any:
    """A partition for each item. Dask takes equal tasks for one and would remember its result, so no two are equal."""
    import dask.bag

    return dask.bag.from_sequence(items, npartitions=len(items)).map(functools.partial(_call, task, uuid.uuid4().hex))


def _call(task: Callable[[T], None], nonce: str, item: T) -> None:
    task(item)


@contextmanager
def workers(processes: int, scheduler: str | None, folder: Path) -> Iterator[Workers]:
    """Starts workers, or connects to those of a cluster.

    Args:
        processes: Processes of this machine; 1 does the work in this one.
        scheduler: Address of a `dask.distributed` scheduler, such as `tcp://node0:8786`, in place of processes here.
        folder: A folder that all workers must see.

    Raises:
        ConfigError: Dask is not installed, the scheduler does not answer, it has no worker, or a worker has other versions or does not
            see the folder; or the caller's script starts processes while it is imported.
    """
    try:
        import dask.bag  # noqa: F401
        import distributed
    except ImportError as error:
        raise ConfigError(f"Preparing data needs {error.name}, which is not installed: pip install 'nemo_cmim[data]'.") from error
    if scheduler is None and processes == 1:
        yield Workers(None)
    elif scheduler is None:
        with _local_cluster(processes) as cluster, distributed.Client(cluster) as client:
            yield Workers(client)
    else:
        try:
            client = distributed.Client(scheduler)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"No Dask scheduler answers at {scheduler} ({error}). Start one: dask scheduler; dask worker ADDRESS."
            ) from error
        with client:
            _check_workers(client, scheduler, folder)
            yield Workers(client)


def _local_cluster(processes: int) -> Any:
    import distributed

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(_GUARD)  # this is one of the workers, which imports the caller's script
    try:
        return distributed.LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None)
    except RuntimeError as error:
        raise ConfigError(f"No worker could be started ({error}). {_GUARD}") from error


def _check_workers(client: Any, scheduler: str, folder: Path) -> None:
    import distributed

    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
        found = client.run(_describe, folder)
    except distributed.TimeoutError as error:
        raise ConfigError(f"The scheduler {scheduler} has no worker. Start one: dask worker {scheduler}.") from error
    except ImportError as error:
        raise ConfigError(
            f"A worker of {scheduler} lacks {error.name}: install nemo_cmim[data] there, in the same version."
        ) from error
    for worker, (theirs, sees_folder) in found.items():
        if not sees_folder:
            raise ConfigError(
                f"Worker {worker} of {scheduler} does not see {folder}: all need one file system under the same paths."
            )
        if theirs != versions():
            raise ConfigError(
                f"Worker {worker} of {scheduler} has {theirs}, but here is {versions()}: install the same everywhere."
            )


def _describe(folder: Path) -> tuple[dict[str, str], bool]:
    return versions(), folder.is_dir()
