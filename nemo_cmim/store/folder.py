"""The files of a prepared folder, on a disk or wherever fsspec reaches (`s3://`, `gs://`, `http://`): sizes, whole files, parts."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import ConfigError, DataError

__all__ = ["ByteRange", "Folder", "LocalFolder", "RemoteFolder", "folder_at"]

T = TypeVar("T")

_DELAYS = (0.5, 2.0, 8.0)  # seconds before a read that failed is tried again


class ByteRange(NamedTuple):
    """Bytes `start` to `stop` of a file."""

    name: str
    start: int
    stop: int


class LocalFolder:
    """A folder that the operating system knows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def place(self, name: str) -> str:
        """What messages call a file."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: There is none.
        """
        return (self.path / name).read_bytes()

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of those of the files that are there, from one listing."""
        wanted = set(names)
        with os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name in wanted and entry.is_file()}

    def parts(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        """Parts of files.

        Raises:
            DataError: A file is gone, or shorter than that.
        """
        found = []
        for name, start, stop in wanted:
            try:
                with (self.path / name).open("rb", buffering=0) as file:
                    found.append(os.pread(file.fileno(), stop - start, start))
            except FileNotFoundError as error:
                raise DataError(f"{self.place(name)} is missing: prepare or copy the folder again.") from error
            if len(found[-1]) != stop - start:
                raise DataError(f"{self.place(name)} ends before byte {stop}: prepare or copy the folder again.")
        return found


class RemoteFolder:
    """A folder behind a URL. Credentials and endpoints are those of the environment, as fsspec's own packages find them.

    Each process connects anew: connections do not survive a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._connected_by: int | None = None
        self._connect()  # a backend that is missing is found here

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFolder, (self.url,)

    def _connect(self) -> Any:
        """The file system of this process."""
        if self._connected_by != os.getpid():
            try:
                import fsspec.core

                self._files, self._root = fsspec.core.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise ConfigError(
                    f"{self.url} cannot be read here ({error}). What reads URLs comes with pip install 'nemo_cmim[train]' and the package "
                    "of the storage: s3fs for s3://, gcsfs for gs://, aiohttp for http://, multi-storage-client for msc://."
                ) from error
            self._connected_by = os.getpid()
        return self._files

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def place(self, name: str) -> str:
        """What messages call a file."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: There is none.
            DataError: It cannot be read.
        """
        return self._fetch([(name, None, None)])[0]

    def parts(self, wanted: Sequence[ByteRange]) -> list[bytes]:
        """Parts of files, asked for all at once.

        Raises:
            DataError: A file is gone, or cannot be read; by then it was tried a few times.
        """
        try:
            return self._fetch(wanted)
        except FileNotFoundError as error:
            raise DataError(f"{error} is missing: prepare or copy the folder again.") from error

    def _fetch(self, wanted: Sequence[tuple[str, int | None, int | None]]) -> list[bytes]:
        files = self._connect()
        found: dict[int, bytes] = {}

        def attempt() -> list[bytes]:
            missing = [i for i in range(len(wanted)) if i not in found]
            names, starts, stops = (list(field) for field in zip(*(wanted[i] for i in missing)))
            failure = None
            results = files.cat_ranges([self._path(name) for name in names], starts, stops, on_error="return")
            for i, name, start, stop, result in zip(missing, names, starts, stops, results):
                if isinstance(result, FileNotFoundError):
                    raise FileNotFoundError(self.place(name)) from result
                size = None if start is None or stop is None else stop - start
                if not isinstance(result, bytes):
                    failure = _Failure(self.place(name), result)
                elif size is None or len(result) == size:
                    found[i] = result
                elif len(result) < size:
                    failure = _Failure(self.place(name), OSError(f"{len(result)} of {size} bytes came"))
                else:
                    raise DataError(
                        f"{self.place(name)} was asked for {size} bytes, but {len(result)} came: its server does not answer range "
                        "requests. Serve the folder by one that does, or copy it to a local disk."
                    )
            if failure is not None:
                raise failure
            return [found[i] for i in range(len(wanted))]

        return _tried_again(attempt) if wanted else []

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of those of the files that are there: from a listing, or over HTTP, which has none, by a request for each.

        Raises:
            DataError: Over HTTP, a file is missing, or the server does not answer.
        """
        files = self._connect()
        if "http" not in files.protocol:
            files.invalidate_cache()
            return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in files.ls(self._root, detail=True)}
        found: dict[str, int] = {}

        def attempt() -> dict[str, int]:
            missing = [name for name in names if name not in found]
            try:
                found.update(zip(missing, files.sizes([self._path(name) for name in missing])))
            except _network_errors() as error:
                raise _Failure(str(error) if isinstance(error, FileNotFoundError) else self.url, error) from error
            return found

        return _tried_again(attempt)


class _Failure(Exception):
    """A read that may go well next time."""

    def __init__(self, place: str, error: BaseException) -> None:
        super().__init__(place, error)
        self.place, self.error = place, error


def _tried_again(attempt: Callable[[], T]) -> T:
    for delay in _DELAYS:
        try:
            return attempt()
        except _Failure:
            time.sleep(delay)
    try:
        return attempt()
    except _Failure as failure:
        raise DataError(
            f"{failure.place} could not be read in {len(_DELAYS) + 1} attempts ({failure.error!r}): see that it is there and that the "
            "storage answers. A run that is started again goes on from its last checkpoint."
        ) from failure.error


def _network_errors() -> tuple[type[BaseException], ...]:
    aiohttp = sys.modules.get("aiohttp")  # its errors are no OSErrors
    return (OSError, asyncio.TimeoutError, *([aiohttp.ClientError] if aiohttp else []))


Folder = LocalFolder | RemoteFolder


def folder_at(folder: str | Path) -> Folder:
    """The folder of this path or URL.

    Raises:
        ConfigError: fsspec, or its package for the URL's protocol, is not installed.
    """
    return RemoteFolder(str(folder)) if "://" in str(folder) else LocalFolder(Path(folder))
