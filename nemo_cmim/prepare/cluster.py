"""Runs tasks with Dask: in this process, in other processes on this machine, or on a cluster with a given scheduler."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import multiprocessing
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

from ..arguments import check_integer
from ..errors import ConfigError, DataError

__all__ = ["Workers", "WorkersLostError", "check_workers", "start_workers", "version_of", "versions"]

T = TypeVar("T")

_AT_ONCE = 256  # tasks that are sent to the scheduler at once
_FIRST_WORKER_TIMEOUT = 60  # seconds
_TRIM = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
"""Dask's setting that makes workers return memory to the system after each large tensor. It costs time (`benchmarks.dask_workers`), so
local workers are started without it."""
_GUARD = """A script that starts several processes must do so under `if __name__ == "__main__":`."""
_PACKAGES = ("nemo_cmim", "rdkit")  # their versions may change the output


def versions() -> dict[str, str]:
    """Versions of the packages that may change the output of `prepare`."""
    return {name: version_of(name) for name in _PACKAGES}


def version_of(package: str) -> str:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def check_workers(processes: int | None, scheduler: str | None) -> None:
    """Raises a `ConfigError` if the number of processes is not an integer of at least 1, or is given with a scheduler."""
    check_integer("processes", processes, optional=True)
    if processes is not None and scheduler is not None:
        raise ConfigError(
            f"processes={processes} and scheduler={scheduler} exclude each other: the workers of the scheduler do the work. "
            "Pass only one of them."
        )


class VisibleFolder(Protocol):
    """A folder, such as a `Path`, that processes on other machines can look for."""

    def is_dir(self) -> bool:
        """Whether this process can see the folder."""


class WorkersLostError(DataError):
    """Workers died, or the scheduler cannot be reached. The inputs and settings are not the cause."""


class Workers:
    """Runs tasks. See `start_workers`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, task: Callable[[T], None], items: Sequence[T], *, starts_in_order: bool = False) -> Iterator[T]:
        """Runs `task(item)` for each item, and yields each item when its task is done, in any order. See `compute`."""
        return self.compute(lambda some: _delayed(some, task), items, starts_in_order=starts_in_order)

    def compute(
        self, delayed: Callable[[Sequence[T]], Sequence[Any]], items: Sequence[T], *, starts_in_order: bool = False
    ) -> Iterator[T]:
        """Computes a `dask.delayed` value for each item, and yields each item when its value is computed, in any order.

        If a worker dies, its tasks are given to other workers, up to three times. Exceptions of a task are raised here.

        Args:
            delayed: Makes the values of some items.
            items: The items.
            starts_in_order: Whether the tasks start in the order of `items`. This takes about 5 ms more for each; otherwise Dask orders
                them by their keys.

        Raises:
            DataError: If four workers died while running the same task, or the connection to the scheduler is lost.
        """
        if self._client is None:
            for item in items:
                delayed([item])[0].compute(scheduler="synchronous")
                yield item
            return
        import distributed

        futures: dict[Any, T] = {}
        size = 1 if starts_in_order else _AT_ONCE
        for begin in range(0, len(items), size):
            some = items[begin : begin + size]
            futures.update(zip(self._client.compute(list(delayed(some)), priority=-begin), some))
        try:
            for future in distributed.as_completed(futures):
                future.result()
                yield futures[future]
        except distributed.KilledWorker as error:
            raise WorkersLostError(
                f"Workers died repeatedly ({error}). If they ran out of memory, use fewer processes. Finished tasks are kept. "
                "Rerun to resume."
            ) from error
        except distributed.CancelledError as error:
            raise WorkersLostError(
                f"The connection to the Dask scheduler was lost ({error}). Finished tasks are kept. Restart the scheduler and rerun to "
                "resume."
            ) from error
        finally:
            self._client.cancel(list(futures))


def _delayed(items: Sequence[T], task: Callable[[T], None]) -> list[Any]:
    """A value for each item, which is one task of Dask: with two, the second would wait for the next item of a worker."""
    from dask.delayed import delayed

    nonce = uuid.uuid4().hex  # Dask computes equal keys only once, and orders tasks by their keys
    return [
        delayed(functools.partial(task, item), pure=False)(dask_key_name=f"task-{nonce}-{number:06}")
        for number, item in enumerate(items)
    ]


@contextmanager
def start_workers(processes: int, scheduler: str | None, folder: VisibleFolder, what: str = "Preparing data") -> Iterator[Workers]:
    """Starts workers, or connects to those of a cluster.

    Args:
        processes: Number of processes on this machine; with 1, tasks run in this process.
        scheduler: Address of a `dask.distributed` scheduler, such as `tcp://node0:8786`, instead of processes on this machine.
        folder: A folder that all workers must see.
        what: What the workers do, as the beginning of a message.

    Raises:
        ConfigError: If Dask is not installed, the scheduler does not answer or has no worker, a worker has different versions or does
            not see the folder, or the caller's script starts processes while it is imported.
    """
    try:
        import dask  # noqa: F401
        import distributed
    except ImportError as error:
        raise ConfigError(f"{what} requires {error.name}, which is not installed: pip install 'nemo_cmim[data]'.") from error
    if scheduler is None and processes == 1:
        yield Workers(None)
    elif scheduler is None:
        with _local_cluster(processes) as cluster, distributed.Client(cluster) as client:
            client.register_plugin(_quiet_end())
            yield Workers(client)
    else:
        try:
            client = distributed.Client(scheduler)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"No Dask scheduler answers at {scheduler} ({error}). Start one: dask scheduler; dask worker {scheduler}."
            ) from error
        with client:
            _check_workers(client, scheduler, folder)
            yield Workers(client)


def _local_cluster(processes: int) -> Any:
    import dask
    import distributed

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(_GUARD)  # this process is a worker, which imports the caller's script
    # Ctrl-C goes to all processes of a terminal. This process handles it and ends the workers, which inherit that it is blocked.
    # Starting the resource tracker unblocks it: the tracker must run before.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with dask.config.set({_TRIM: None}):
            return distributed.LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                dashboard_address=None,
                scheduler_kwargs={
                    "dashboard_address": ":0"
                },  # the status server: any free port, not 8787, which another cluster may use
            )
    except RuntimeError as error:
        raise ConfigError(f"No worker could be started ({error}). {_GUARD}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _quiet_end() -> Any:
    """Keeps workers from logging that the scheduler is gone, with a traceback, when Ctrl-C ends both. Errors of tasks go to the client."""
    import distributed

    class Quiet(distributed.WorkerPlugin):
        name = "quiet end"

        def setup(self, worker: Any) -> None:
            logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
            logging.getLogger("distributed.worker.memory").setLevel(logging.WARNING)

    return Quiet()


def _check_workers(client: Any, scheduler: str, folder: VisibleFolder) -> None:
    import distributed

    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER_TIMEOUT)
        found = client.run(_describe, folder)
    except distributed.TimeoutError as error:
        raise ConfigError(f"The scheduler {scheduler} has no worker. Start one: dask worker {scheduler}.") from error
    except ImportError as error:
        raise ConfigError(
            f"A worker of {scheduler} cannot import {error.name}. Install the same version of nemo_cmim[data] there."
        ) from error
    for worker, (theirs, sees_folder) in found.items():
        if not sees_folder:
            raise ConfigError(
                f"Worker {worker} of {scheduler} does not see {folder}. All workers must see the same file system under the same paths."
            )
        if theirs != versions():
            raise ConfigError(
                f"Worker {worker} of {scheduler} has {theirs}, but this process has {versions()}. Install the same versions everywhere."
            )


def _describe(folder: VisibleFolder) -> tuple[dict[str, str], bool]:
    return versions(), folder.is_dir()
