"""Downloads many files to a folder, and records their states in `downloads.json` there.

A download can be interrupted at any time, even by SIGKILL or a power failure. Running it again resumes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..files import atomic_write, lock
from .integrity import BrokenFileError, check_file
from .transfer import FailedError, Fetcher, MissingError, RetryPolicy, remove_part_file
from .url_lists import Source

__all__ = ["DOWNLOADS", "Downloads", "Entry", "download"]

DOWNLOADS = "downloads.json"
_FORMAT = "nemo_cmim downloads 1"
_LOCK = ".downloads.lock"
_SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The state of a URL.

    Attributes:
        file: path of the file, relative to the folder.
        state: `complete`, `missing` (the server does not have the file) or `failed` (the next run will try again).
        reason: why the file is not complete.
        bytes: size of the file.
        sha256: SHA-256 of the file.
        lines: number of lines after decompression, including the header.
        etag: `ETag` header of the server.
        last_modified: `Last-Modified` header of the server.
    """

    file: str
    state: str
    reason: str = ""
    bytes: int | None = None
    sha256: str | None = None
    lines: int | None = None
    etag: str | None = None
    last_modified: str | None = None


@dataclass
class Downloads:
    """Contents of `downloads.json`: an entry for each URL of this and earlier runs."""

    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Files by state, and `bytes` and `lines` of the complete ones."""
        complete = [entry for entry in self.entries.values() if entry.state == "complete"]
        states = Counter(entry.state for entry in self.entries.values())
        sums = {"bytes": sum(entry.bytes or 0 for entry in complete), "lines": sum(entry.lines or 0 for entry in complete)}
        return {**{state: states[state] for state in ("complete", "missing", "failed")}, **sums}

    def save(self, folder: Path) -> None:
        """Writes `downloads.json` atomically."""
        files = {url: asdict(entry) for url, entry in self.entries.items()}
        content = {"format": _FORMAT, "counts": self.counts, "files": files}
        with atomic_write(folder / DOWNLOADS) as new:
            new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Downloads:
        """Reads `downloads.json` of `folder`; without entries if the file does not exist.

        Raises:
            DataError: If the file is damaged or has a different format.
        """
        path = folder / DOWNLOADS
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise KeyError("format")
            return cls({url: Entry(**entry) for url, entry in content["files"].items()})
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is damaged or has a different version ({error!r}). Remove {DOWNLOADS}: the next run checks and keeps "
                "the files in the folder."
            ) from error


def download(
    sources: Sequence[Source],
    folder: str | Path,
    *,
    retry_policy: RetryPolicy | None = None,
    retry_missing: bool = False,
    progress: bool | None = None,
) -> Downloads:
    """Downloads files to a folder. Keeps files that are complete, and resumes those that were interrupted.

    A file gets its name only when it is complete: it has the length that the server reports, is not a web page, ends with a complete
    line, and can be decompressed to its end. A file that the server does not have is `missing`, which is not an error.

    Args:
        sources: The URLs and their files.
        folder: The folder to write. Only one run at a time can use it.
        retry_policy: Numbers of attempts and threads, timeouts, and rate limits.
        retry_missing: Request files again that were missing in an earlier run.
        progress: Whether to show a progress bar on stderr; None: if stderr is a terminal.

    Returns:
        The entries of `sources`. Other entries of `downloads.json` are not included.

    Raises:
        ConfigError: If two URLs have the same file, another run uses the folder, or requests or tenacity are not installed.
        DataError: If the folder cannot be written or its disk is full; or, after all other files are done, if a file failed.
    """
    folder = Path(folder)
    sources = list({source.url: source for source in sources}.values())
    fetcher = Fetcher(retry_policy or RetryPolicy())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / _LOCK, str(folder), "Wait for that download, stop it, or choose a different folder."):
            known = Downloads.load(folder)
            _check_clashes(sources, known)
            try:
                _download_all(sources, folder, fetcher, known, retry_missing, progress)
            finally:
                fetcher.stop.set()
                known.save(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"The disk of {folder} is full. Free some space, then run the same command again to resume.") from error
        raise DataError(
            f"{folder} cannot be written: {error}. Choose a different folder, or correct {folder} and run again."
        ) from error
    result = Downloads({source.url: known.entries[source.url] for source in sources})
    failed = [(url, entry) for url, entry in result.entries.items() if entry.state == "failed"]
    if failed:
        url, entry = failed[0]
        raise DataError(
            f"{len(failed):,} of {len(result.entries):,} files could not be downloaded, for example {url}: {entry.reason}. "
            f"All reasons are in {folder / DOWNLOADS}. Run the same command again to download only the failed files."
        )
    return result


def _check_clashes(sources: Sequence[Source], known: Downloads) -> None:
    """Checks that no two URLs of this run and of complete files have the same file."""
    url_of = {entry.file: url for url, entry in known.entries.items() if entry.state == "complete"}
    for source in sources:
        other = url_of.setdefault(source.file, source.url)
        if other != source.url:
            raise ConfigError(
                f"{other} and {source.url} have the same file {source.file}. Download one of them to a different folder."
            )


def _download_all(
    sources: Sequence[Source], folder: Path, fetcher: Fetcher, known: Downloads, retry_missing: bool, progress: bool | None
) -> None:
    """Downloads all sources in threads and stores their entries in `known`."""
    todo: queue.SimpleQueue[Source] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Source, Entry | BaseException]] = queue.SimpleQueue()
    before = dict(known.entries)  # read by the threads

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not fetcher.stop.is_set():
                source = todo.get_nowait()
                try:
                    done.put((source, _download_one(source, folder, fetcher, before.get(source.url), retry_missing)))
                except Exception as error:  # noqa: BLE001  # raised again in the main thread
                    done.put((source, error))

    for source in sources:
        todo.put(source)
    for _ in range(min(fetcher.retry_policy.threads, len(sources))):
        # A daemon, so that Ctrl-C does not wait for a server that does not answer.
        threading.Thread(target=work, daemon=True).start()
    saved_at = time.monotonic()
    states = Counter[str]()
    with tqdm(total=len(sources), unit=" files", desc="download", disable=None if progress is None else not progress) as bar:
        for _ in sources:
            source, outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            known.entries[source.url] = outcome
            states[outcome.state] += 1
            bar.update()
            bar.set_postfix(states, refresh=False)
            if time.monotonic() > saved_at + _SAVE_EVERY:
                known.save(folder)
                saved_at = time.monotonic()


def _download_one(source: Source, folder: Path, fetcher: Fetcher, known: Entry | None, retry_missing: bool) -> Entry:
    """Keeps the file if it is complete, and downloads it otherwise."""
    target = folder / source.file
    if target.is_file():
        if known and known.state == "complete" and known.file == source.file:
            if target.stat().st_size == known.bytes:
                remove_part_file(target)
                return known
        else:
            with contextlib.suppress(BrokenFileError):
                return Entry(file=source.file, state="complete", **check_file(target, target.name)._asdict())
    elif known and known.state == "missing" and not retry_missing:
        return known
    try:
        origin, info = fetcher.fetch(source.url, target)
    except MissingError as error:
        return Entry(file=source.file, state="missing", reason=str(error))
    except FailedError as error:
        return Entry(file=source.file, state="failed", reason=str(error))
    entry = Entry(file=source.file, state="complete", **info._asdict())
    return replace(entry, etag=origin.etag, last_modified=origin.last_modified)
