"""Fetches one file over HTTP: goes on where a try ended, tries again, keeps to a pace, and puts only whole files in place.

While a file is on its way it is `NAME.part`, beside `NAME.part.json` that says which version of the file it is the beginning of.
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
from .integrity import BrokenFileError, Facts, check_file

if TYPE_CHECKING:
    import requests
    import tenacity

__all__ = ["FailedError", "Fetcher", "MissingError", "Origin", "RetryPolicy", "StoppedError", "discard_part"]

_CHUNK = 1 << 16
_TRY_AGAIN = {408, 425, 429}  # and 5xx


class MissingError(Exception):
    """The server has no such file."""


class FailedError(Exception):
    """The file cannot be had, at least not now."""


class StoppedError(Exception):
    """The fetcher was told to stop."""


class _RetryError(FailedError):
    """A try that failed; another may do better, but not before `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How hard to try, and how gently.

    Attributes:
        threads: files at a time.
        attempts: tries of each file.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds without a byte after which a try is given up.
        backoff: seconds between the first two tries, about; doubled after each try.
        longest_wait: seconds; a server that asks to wait longer is not asked again in this run.
        requests_per_second: of all threads together; inf: no limit.
        bytes_per_second: likewise.
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
    """Which version of a file the server gave: what tells it from others; None: the server did not say."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None

    @property
    def validator(self) -> str | None:
        """For If-Range, which takes no weak ETag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def differs_from(self, other: Origin) -> bool:
        """Whether anything that both know is not the same."""
        return any(a is not None and b is not None and a != b for a, b in zip(self, other))


class _Pace:
    """Lets threads take so much per second, all together."""

    def __init__(self, per_second: float, stop: threading.Event) -> None:
        self._per_second = per_second
        self._stop = stop
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, amount: float) -> None:
        """Waits until what was taken before is paid off."""
        with self._lock:
            start = max(self._free_at, time.monotonic())
            self._free_at = start + amount / self._per_second
        self._stop.wait(max(start - time.monotonic(), 0.0))

    def hold(self, seconds: float) -> None:
        """Gives out nothing for so long."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)


class Fetcher:
    """Fetches files, also from several threads at a time; `stop` ends that soon."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        """Raises ConfigError where requests or tenacity are not installed."""
        try:
            import requests
            import tenacity
        except ImportError as error:
            raise ConfigError(f"Downloads need requests and tenacity ({error}): pip install 'nemo_cmim[data]'") from error
        self.retry_policy = retry_policy
        self.stop = threading.Event()
        self._requests = requests
        self._local = threading.local()
        self._request_pace = _Pace(retry_policy.requests_per_second, self.stop)
        self._byte_pace = _Pace(retry_policy.bytes_per_second, self.stop)
        backoff = tenacity.wait_exponential(retry_policy.backoff, max=60 * retry_policy.backoff) + tenacity.wait_random(
            0, retry_policy.backoff
        )
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_RetryError),
            stop=tenacity.stop_after_attempt(retry_policy.attempts),
            wait=lambda state: max(backoff(state), _asked_wait(state)),
            sleep=tenacity.sleep_using_event(self.stop),
            reraise=True,
        )

    def fetch(self, url: str, target: Path) -> tuple[Origin, Facts]:
        """Fetches a file to its place, whose folder it makes.

        Raises:
            MissingError: The server has no such file.
            FailedError: It could not be had whole after all tries.
            StoppedError: `stop` was set.
            OSError: The disk is full or cannot be written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._retrying(self._try, url, _Part(target))

    def _try(self, url: str, part: _Part) -> tuple[Origin, Facts]:
        begun, offset = part.begun(url)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and begun.validator:
            headers["If-Range"] = begun.validator
        self._request_pace.take(1)
        self._check_stop()
        errors = self._requests.exceptions
        try:
            timeout = (self.retry_policy.connect_timeout, self.retry_policy.read_timeout)
            with self._session().get(url, headers=headers, stream=True, timeout=timeout) as response:
                self._check_stop()
                origin = self._receive(response, begun, offset, part)
        except (errors.InvalidSchema, errors.InvalidURL, errors.TooManyRedirects) as error:
            raise FailedError(str(error)) from error
        except errors.RequestException as error:
            raise _RetryError(f"{type(error).__name__}: {error}") from error
        return origin, part.finish(origin)

    def _receive(self, response: requests.Response, begun: Origin, offset: int, part: _Part) -> Origin:
        """Takes in what the server answers, and returns what it says of the file."""
        status, head = response.status_code, response.headers
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", head.get("Content-Range", ""))
        if status in (404, 410):
            raise MissingError(f"HTTP status {status}")
        if status in _TRY_AGAIN or status >= 500:
            raise self._later(status, head.get("Retry-After"))
        if status == 416 and offset:
            if span and span[2] == str(offset):
                return begun  # the last try ended after the last byte
            part.discard()
            raise _RetryError(f"the server has no bytes after {offset}: the file has changed there")
        if status not in (200, 206) or (status == 206 and not offset):
            raise FailedError(f"HTTP status {status}")
        encoding = head.get("Content-Encoding", "identity")
        if encoding != "identity" and part.target.suffix not in (".gz", ".xz"):
            raise FailedError(f"the server packs it by {encoding}, which was not asked for")
        total = head.get("Content-Length", "") if status == 200 else span[2] if span else ""
        length = int(total) if total.isdecimal() else None
        origin = Origin(begun.url, head.get("ETag"), head.get("Last-Modified"), length)
        if status == 200:
            part.begin(origin)
        elif span is None or span[1] != str(offset) or origin.differs_from(begun):
            part.discard()
            raise _RetryError("the file changed on the server between two tries")
        else:
            origin = begun
        self._append(response, part)
        return origin

    def _append(self, response: requests.Response, part: _Part) -> None:
        """Writes the body as it is sent: a packed file stays packed, also if the server calls that an encoding."""
        import urllib3

        with part.path.open("ab") as file:
            try:
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    self._check_stop()
                    file.write(chunk)
                    self._byte_pace.take(len(chunk))
            except urllib3.exceptions.HTTPError as error:
                raise _RetryError(f"{type(error).__name__}: {error}") from error

    def _later(self, status: int, retry_after: str | None) -> FailedError:
        wait = _seconds(retry_after) if status in (429, 503) else 0.0
        if wait > self.retry_policy.longest_wait:
            return FailedError(f"HTTP status {status}, and the server asks to wait {wait:.0f} s")
        self._request_pace.hold(wait)  # for the other threads
        return _RetryError(f"HTTP status {status}", wait)

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = self._requests.Session()
            self._local.session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"nemo_cmim/{__version__}"})
        return self._local.session

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedError


class _Part:
    """A file on its way."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._about = target.with_name(target.name + ".part.json")

    def begun(self, url: str) -> tuple[Origin, int]:
        """What is known of the file, and how many bytes of it are here. What cannot be gone on from counts as nothing."""
        try:
            origin = Origin(**json.loads(self._about.read_text(encoding="utf-8")))
            size = self.path.stat().st_size
        except (FileNotFoundError, ValueError, TypeError):
            return Origin(url), 0
        can_go_on = origin.url == url and (origin.validator or origin.length)
        return (origin, size) if can_go_on else (Origin(url), 0)

    def begin(self, origin: Origin) -> None:
        """Empties the file; the bytes to come are of this origin."""
        self.discard()
        self._about.write_text(json.dumps(origin._asdict()), encoding="utf-8")

    def discard(self) -> None:
        """Removes what came so far."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, origin: Origin) -> Facts:
        """Checks the file, and moves it into place so that it is there whole even after a power cut."""
        size = self.path.stat().st_size
        if origin.length is not None and size < origin.length:
            raise _RetryError(f"the connection ended after {size} of {origin.length} bytes")
        try:
            if origin.length is not None and size > origin.length:
                raise BrokenFileError(f"it has {size} bytes, and should have {origin.length}")
            facts = check_file(self.path, self.target.name)
        except BrokenFileError as error:
            self.discard()
            raise _RetryError(str(error)) from error
        fsync(self.path)
        self.path.replace(self.target)
        fsync(self.target.parent)
        self._about.unlink()
        return facts


def discard_part(target: Path) -> None:
    """Removes what is left of the download of a file that is whole."""
    _Part(target).discard()


def _asked_wait(state: tenacity.RetryCallState) -> float:
    error: Any = state.outcome.exception() if state.outcome else None
    return error.wait


def _seconds(retry_after: str | None) -> float:
    """Retry-After, which is a number of seconds or a date; 0 if there is none that can be read."""
    if retry_after is None or retry_after.strip().isdecimal():
        return float(retry_after or 0)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max((date - datetime.now(timezone.utc)).total_seconds(), 0.0)
