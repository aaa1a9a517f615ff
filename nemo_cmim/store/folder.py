"""Reads files and byte ranges of a prepared folder, on a disk or at a URL that fsspec supports (`s3://`, `gs://`, `http://`)."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    import tenacity

__all__ = ["ByteRange", "Folder", "LocalFolder", "RemoteFolder", "open_folder"]

T = TypeVar("T")

_DELAYS = (0.5, 2.0, 8.0)  # seconds between attempts to read


class ByteRange(NamedTuple):
    """Bytes `start` to `stop` of a file."""

    name: str
    start: int
    stop: int


class LocalFolder:
    """A folder of the file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def location(self, name: str) -> str:
        """The path of a file, for messages."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: If the file does not exist.
        """
        return (self.path / name).read_bytes()

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Sizes in bytes of those files that exist, from one listing."""
        requested = set(names)
        with os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name in requested and entry.is_file()}

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of each range.

        Raises:
            DataError: If a file does not exist or ends before its range does.
        """
        contents: list[bytes] = []
        for name, group in itertools.groupby(ranges, key=attrgetter("name")):
            try:
                with (self.path / name).open("rb", buffering=0) as file:
                    for _, start, stop in group:
                        contents.append(os.pread(file.fileno(), stop - start, start))
                        if len(contents[-1]) != stop - start:
                            raise DataError(f"{self.location(name)} ends before byte {stop}. Prepare or copy the folder again.")
            except FileNotFoundError as error:
                raise DataError(f"{self.location(name)} is missing. Prepare or copy the folder again.") from error
        return contents


class RemoteFolder:
    """A folder at a URL. Credentials and endpoints come from the environment, as in fsspec's own packages.

    Each process opens its own connections, because connections cannot be used after a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._connected_process: int | None = None
        self._connect()  # raises here if a package is not installed

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFolder, (self.url,)

    def _connect(self) -> Any:
        """The file system of this process."""
        if self._connected_process != os.getpid():
            try:
                import fsspec.core
                import tenacity

                self._files, self._root = fsspec.core.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise ConfigError(
                    f"{self.url} cannot be read here ({error}). Run pip install 'nemo_cmim[train]' and install the package of "
                    "the storage: s3fs for s3://, gcsfs for gs://, aiohttp for http://, multi-storage-client for msc://."
                ) from error
            self._retrying = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(_TransientError),
                wait=tenacity.wait_chain(*map(tenacity.wait_fixed, _DELAYS)),
                stop=tenacity.stop_after_attempt(len(_DELAYS) + 1),
                reraise=True,
            )
            self._connected_process = os.getpid()
        return self._files

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def location(self, name: str) -> str:
        """The URL of a file, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: If the file does not exist.
            DataError: If the file cannot be read after several attempts.
        """
        return self._fetch([(name, None, None)])[0]

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of each range, requested concurrently.

        Raises:
            DataError: If a file does not exist, or cannot be read after several attempts.
        """
        try:
            return self._fetch(ranges)
        except FileNotFoundError as error:
            raise DataError(f"{error} is missing. Prepare or copy the folder again.") from error

    def _fetch(self, ranges: Sequence[tuple[str, int | None, int | None]]) -> list[bytes]:
        files = self._connect()
        contents: dict[int, bytes] = {}

        def attempt() -> list[bytes]:
            missing = [i for i in range(len(ranges)) if i not in contents]
            names, starts, stops = (list(field) for field in zip(*(ranges[i] for i in missing)))
            failure = None
            results = files.cat_ranges([self._path(name) for name in names], starts, stops, on_error="return")
            for i, name, start, stop, result in zip(missing, names, starts, stops, results):
                if isinstance(result, FileNotFoundError):
                    raise FileNotFoundError(self.location(name)) from result
                size = None if start is None or stop is None else stop - start
                if not isinstance(result, bytes):
                    failure = _TransientError(self.location(name), result)
                elif size is None or len(result) == size:
                    contents[i] = result
                elif len(result) < size:
                    failure = _TransientError(self.location(name), OSError(f"received {len(result)} of {size} bytes"))
                else:
                    raise DataError(
                        f"{self.location(name)}: requested {size} bytes, but received {len(result)}. The server does not support range "
                        "requests. Use a server that does, or copy the folder to a local disk."
                    )
            if failure is not None:
                raise failure
            return [contents[i] for i in range(len(ranges))]

        return _call(self._retrying, attempt) if ranges else []

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Sizes in bytes of those files that exist: from a listing, or over HTTP, which has no listings, by one request for each.

        Raises:
            DataError: Over HTTP, if a file is missing or the server does not answer.
        """
        files = self._connect()
        if "http" not in files.protocol:
            files.invalidate_cache()
            return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in files.ls(self._root, detail=True)}
        sizes: dict[str, int] = {}

        def attempt() -> dict[str, int]:
            missing = [name for name in names if name not in sizes]
            try:
                sizes.update(zip(missing, files.sizes([self._path(name) for name in missing])))
            except _network_errors() as error:
                raise _TransientError(str(error) if isinstance(error, FileNotFoundError) else self.url, error) from error
            return sizes

        return _call(self._retrying, attempt)


class _TransientError(Exception):
    """A failed read that may succeed in the next attempt."""

    def __init__(self, location: str, error: BaseException) -> None:
        super().__init__(location, error)
        self.location, self.error = location, error


def _call(retrying: tenacity.Retrying, attempt: Callable[[], T]) -> T:
    try:
        return retrying(attempt)
    except _TransientError as failure:
        raise DataError(
            f"{failure.location} could not be read in {len(_DELAYS) + 1} attempts ({failure.error!r}). Check that the file exists and "
            "the storage is available. A run that is started again resumes from its last checkpoint."
        ) from failure.error


def _network_errors() -> tuple[type[BaseException], ...]:
    aiohttp = sys.modules.get("aiohttp")  # its errors are not OSErrors
    return (OSError, asyncio.TimeoutError, *([aiohttp.ClientError] if aiohttp else []))


Folder = LocalFolder | RemoteFolder


def open_folder(folder: str | Path) -> Folder:
    """The folder at this path or URL.

    Raises:
        ConfigError: If a package that reads the URL is not installed.
    """
    return RemoteFolder(str(folder)) if "://" in str(folder) else LocalFolder(Path(folder))
