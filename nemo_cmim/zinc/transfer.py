"""Downloads one file over HTTP, with retries, resuming and rate limits. Only complete files get their names.

An incomplete file is called `NAME.part`, and `NAME.part.json` records which version of the file on the server it is from.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError
from ..files import fsync
from ..version import __version__
from .integrity import BrokenFileError, FileInfo, check_file

if TYPE_CHECKING:
    import requests
    import tenacity

__all__ = ["FailedError", "Fetcher", "MissingError", "Origin", "RetryPolicy", "StoppedError", "remove_part_file"]

_CHUNK = 1 << 16  # bytes
_RETRY_STATUS = {408, 425, 429}  # and 5xx


class MissingError(Exception):
    """The server does not have the file."""


class FailedError(Exception):
    """The file could not be downloaded."""


class StoppedError(Exception):
    """`Fetcher.stop` was set."""


class _RetryError(FailedError):
    """An attempt that failed. The next one may succeed after `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Attempts, timeouts and rate limits of downloads.

    Attributes:
        threads: number of files downloaded at a time.
        attempts: number of attempts for each file.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds without data after which an attempt fails.
        backoff: approximate seconds between the first two attempts; doubled after each attempt.
        longest_wait: maximum seconds to wait if a server sends `Retry-After`; the file fails if the server asks for more.
        requests_per_second: limit for all threads together; inf: no limit.
        bytes_per_second: limit for all threads together; inf: no limit.
    """

    threads: int = 4
    attempts: int = 6
    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    backoff: float = 1.0
    longest_wait: float = 600.0
    requests_per_second: float = 4.0
    bytes_per_second: float = 20e6

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"{field.name} must be positive, found {value}.")


class Origin(NamedTuple):
    """Identifies the version of a file on the server. A field is None if the server did not send it."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None

    @property
    def validator(self) -> str | None:
        """The value for `If-Range`, which does not allow weak ETags."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def differs_from(self, other: Origin) -> bool:
        """Whether a field that both have differs."""
        return any(a is not None and b is not None and a != b for a, b in zip(self, other))


class _RateLimit:
    """Limits an amount per second over all threads."""

    def __init__(self, per_second: float, stop: threading.Event) -> None:
        self._per_second = per_second
        self._stop = stop
        self._lock = threading.Lock()
        self._free_at = 0.0

    def acquire(self, amount: float) -> None:
        """Waits until the amounts acquired before are within the limit."""
        with self._lock:
            start = max(self._free_at, time.monotonic())
            self._free_at = start + amount / self._per_second
        self._stop.wait(max(start - time.monotonic(), 0.0))

    def pause(self, seconds: float) -> None:
        """Makes all threads wait."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)


class Fetcher:
    """Downloads files, also from several threads. Setting `stop` ends all downloads soon."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        """Raises ConfigError if requests or tenacity are not installed."""
        try:
            import requests
            import tenacity
        except ImportError as error:
            raise ConfigError(f"Downloads need requests and tenacity ({error}). Run pip install 'nemo_cmim[data]'") from error
        self.retry_policy = retry_policy
        self.stop = threading.Event()
        self._requests = requests
        self._local = threading.local()
        self._request_limit = _RateLimit(retry_policy.requests_per_second, self.stop)
        self._byte_limit = _RateLimit(retry_policy.bytes_per_second, self.stop)
        backoff = tenacity.wait_exponential(retry_policy.backoff, max=60 * retry_policy.backoff) + tenacity.wait_random(
            0, retry_policy.backoff
        )
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_RetryError),
            stop=tenacity.stop_after_attempt(retry_policy.attempts),
            wait=lambda state: max(backoff(state), _requested_wait(state)),
            sleep=tenacity.sleep_using_event(self.stop),
            reraise=True,
        )

    def fetch(self, url: str, target: Path) -> tuple[Origin, FileInfo]:
        """Downloads a file to `target`, and creates its folder.

        Raises:
            MissingError: If the server does not have the file.
            FailedError: If all attempts failed.
            StoppedError: If `stop` was set.
            OSError: If the disk is full or cannot be written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._retrying(self._attempt, url, _PartFile(target))

    def _attempt(self, url: str, part: _PartFile) -> tuple[Origin, FileInfo]:
        stored, offset = part.stored(url)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and stored.validator:
            headers["If-Range"] = stored.validator
        self._request_limit.acquire(1)
        self._check_stop()
        errors = self._requests.exceptions
        try:
            timeout = (self.retry_policy.connect_timeout, self.retry_policy.read_timeout)
            with self._session().get(url, headers=headers, stream=True, timeout=timeout) as response:
                self._check_stop()
                origin = self._receive(response, stored, offset, part)
        except (errors.InvalidSchema, errors.InvalidURL, errors.TooManyRedirects) as error:
            raise FailedError(str(error)) from error
        except errors.RequestException as error:
            raise _RetryError(f"{type(error).__name__}: {error}") from error
        return origin, part.finish(origin)

    def _receive(self, response: requests.Response, stored: Origin, offset: int, part: _PartFile) -> Origin:
        """Writes the response to the `.part` file. Returns the version of the file on the server."""
        status, head = response.status_code, response.headers
        content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", head.get("Content-Range", ""))
        if status in (404, 410):
            raise MissingError(f"HTTP status {status}")
        if status in _RETRY_STATUS or status >= 500:
            raise self._status_error(status, head.get("Retry-After"))
        if status == 416 and offset:
            if content_range and content_range[2] == str(offset):
                return stored  # the last attempt ended after the last byte
            part.discard()
            raise _RetryError(f"the file on the server changed: it has no bytes after {offset}")
        if status not in (200, 206) or (status == 206 and not offset):
            raise FailedError(f"HTTP status {status}")
        encoding = head.get("Content-Encoding", "identity")
        if encoding != "identity" and part.target.suffix not in (".gz", ".xz"):
            raise FailedError(f"the server sent the content encoding {encoding}, which was not requested")
        total = head.get("Content-Length", "") if status == 200 else content_range[2] if content_range else ""
        length = int(total) if total.isdecimal() else None
        origin = Origin(stored.url, head.get("ETag"), head.get("Last-Modified"), length)
        if status == 200:
            part.start(origin)
        elif content_range is None or content_range[1] != str(offset) or origin.differs_from(stored):
            part.discard()
            raise _RetryError("the file on the server changed between two attempts")
        else:
            origin = stored
        self._append(response, part)
        return origin

    def _append(self, response: requests.Response, part: _PartFile) -> None:
        """Writes the body as it is sent. A compressed file stays compressed, even if the server calls this a content encoding."""
        import urllib3

        with part.path.open("ab") as file:
            try:
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    self._check_stop()
                    file.write(chunk)
                    self._byte_limit.acquire(len(chunk))
            except urllib3.exceptions.HTTPError as error:
                raise _RetryError(f"{type(error).__name__}: {error}") from error

    def _status_error(self, status: int, retry_after: str | None) -> FailedError:
        wait = _seconds(retry_after) if status in (429, 503) else 0.0
        if wait > self.retry_policy.longest_wait:
            return FailedError(f"HTTP status {status}; the server asks to wait {wait:.0f} s")
        self._request_limit.pause(wait)  # for the other threads
        return _RetryError(f"HTTP status {status}", wait)

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = self._requests.Session()
            self._local.session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"nemo_cmim/{__version__}"})
        return self._local.session

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedError


class _PartFile:
    """The `.part` file of a download, and its `.part.json`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._origin_path = target.with_name(target.name + ".part.json")

    def stored(self, url: str) -> tuple[Origin, int]:
        """The version of the file that is stored, and its number of bytes: 0 if the download cannot be resumed."""
        try:
            origin = Origin(**json.loads(self._origin_path.read_text(encoding="utf-8")))
            size = self.path.stat().st_size
        except (FileNotFoundError, ValueError, TypeError):
            return Origin(url), 0
        can_resume = origin.url == url and (origin.validator or origin.length)
        return (origin, size) if can_resume else (Origin(url), 0)

    def start(self, origin: Origin) -> None:
        """Removes what is stored, and records the version of the file that will be written."""
        self.discard()
        self._origin_path.write_text(json.dumps(origin._asdict()), encoding="utf-8")

    def discard(self) -> None:
        """Removes what is stored."""
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)

    def finish(self, origin: Origin) -> FileInfo:
        """Checks the file and renames it to its target. The file is complete there, even after a power failure."""
        size = self.path.stat().st_size
        if origin.length is not None and size < origin.length:
            raise _RetryError(f"the connection ended after {size} of {origin.length} bytes")
        try:
            if origin.length is not None and size > origin.length:
                raise BrokenFileError(f"the file has {size} bytes, but the server reported {origin.length}")
            info = check_file(self.path, self.target.name)
        except BrokenFileError as error:
            self.discard()
            raise _RetryError(str(error)) from error
        fsync(self.path)
        self.path.replace(self.target)
        fsync(self.target.parent)
        self._origin_path.unlink()
        return info


def remove_part_file(target: Path) -> None:
    """Removes the `.part` file of a file that is complete."""
    _PartFile(target).discard()


def _requested_wait(state: tenacity.RetryCallState) -> float:
    error: Any = state.outcome.exception() if state.outcome else None
    return error.wait


def _seconds(retry_after: str | None) -> float:
    """Seconds of a `Retry-After` header, which is a number or a date; 0 if it is missing or invalid."""
    if retry_after is None or retry_after.strip().isdecimal():
        return float(retry_after or 0)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max((date - datetime.now(timezone.utc)).total_seconds(), 0.0)
