"""Downloads many files into a folder, and keeps account of them in `downloads.json` there.

It can be stopped at any time, also by SIGKILL or a power cut: run again, it goes on.
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
from .transfer import FailedError, Fetcher, MissingError, RetryPolicy, discard_part
from .url_lists import Source

__all__ = ["DOWNLOADS", "Downloads", "Entry", "download"]

DOWNLOADS = "downloads.json"
_FORMAT = "nemo_cmim downloads 1"
_LOCK = ".downloads.lock"
_SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a URL.

    Attributes:
        file: relative to the folder.
        state: `complete`, `missing` (the server has no such file) or `failed` (another run will try again).
        reason: why it is not complete.
        bytes: size of the file as it lies there.
        sha256: of those bytes.
        lines: number of lines, unpacked, the header included.
        etag: as the server said.
        last_modified: likewise.
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
    """Contents of `downloads.json`: an entry for each URL that was ever asked for."""

    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Files by state, and `bytes` and `lines` of the complete ones."""
        complete = [entry for entry in self.entries.values() if entry.state == "complete"]
        states = Counter(entry.state for entry in self.entries.values())
        sums = {"bytes": sum(entry.bytes or 0 for entry in complete), "lines": sum(entry.lines or 0 for entry in complete)}
        return {**{state: states[state] for state in ("complete", "missing", "failed")}, **sums}

    def save(self, folder: Path) -> None:
        """Writes `downloads.json`, whole or not at all."""
        files = {url: asdict(entry) for url, entry in self.entries.items()}
        content = {"format": _FORMAT, "counts": self.counts, "files": files}
        with atomic_write(folder / DOWNLOADS) as new:
            new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Downloads:
        """Reads `downloads.json` of `folder`; empty if there is none.

        Raises:
            DataError: It is not one of ours.
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
                f"{path} is damaged, or of another version ({error!r}). Remove it: the files in the folder are then checked and kept."
            ) from error


def download(
    sources: Sequence[Source],
    folder: str | Path,
    *,
    retry_policy: RetryPolicy | None = None,
    retry_missing: bool = False,
    progress: bool | None = None,
) -> Downloads:
    """Fetches files into a folder. Those that are there already are kept; files of which a part is there go on from it.

    A file appears under its name only when it is whole: as long as the server says, not a web page, its last line complete,
    readable to the end if packed. One that the server does not have is `missing`, which is no error.

    Args:
        sources: What to fetch, and where to.
        folder: The folder to write; one run at a time may use it.
        retry_policy: How hard to try, and how gently.
        retry_missing: Ask again for files that were missing in an earlier run.
        progress: Show a bar on stderr; by default where that is a terminal.

    Returns:
        What is now known of `sources`, without what else `downloads.json` tells.

    Raises:
        ConfigError: Two URLs go to one file, another run uses the folder, or requests or tenacity are not installed.
        DataError: The folder cannot be written, or its disk is full; or, after everything else is done, a file could not be had.
    """
    folder = Path(folder)
    sources = list({source.url: source for source in sources}.values())
    fetcher = Fetcher(retry_policy or RetryPolicy())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / _LOCK, str(folder), "Wait for that download, stop it, or choose another folder."):
            known = Downloads.load(folder)
            _refuse_clashes(sources, known)
            try:
                _work_through(sources, folder, fetcher, known, retry_missing, progress)
            finally:
                fetcher.stop.set()
                known.save(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"The disk of {folder} is full. Make room and run again: it goes on from here.") from error
        raise DataError(f"{folder} cannot be written: {error}. Choose another folder, or mend this one and run again.") from error
    result = Downloads({source.url: known.entries[source.url] for source in sources})
    failed = [(url, entry) for url, entry in result.entries.items() if entry.state == "failed"]
    if failed:
        url, entry = failed[0]
        raise DataError(
            f"{len(failed):,} of {len(result.entries):,} files could not be had, as {url}: {entry.reason}. "
            f"All reasons are in {folder / DOWNLOADS}. Run again: only these are fetched."
        )
    return result


def _refuse_clashes(sources: Sequence[Source], known: Downloads) -> None:
    """No file is taken for that of another URL, of this call or of an earlier one."""
    places = {entry.file: url for url, entry in known.entries.items() if entry.state == "complete"}
    for source in sources:
        other = places.setdefault(source.file, source.url)
        if other != source.url:
            raise ConfigError(f"{other} and {source.url} are both for {source.file}. Download one of them to another folder.")


def _work_through(
    sources: Sequence[Source], folder: Path, fetcher: Fetcher, known: Downloads, retry_missing: bool, progress: bool | None
) -> None:
    """Brings every source to a state, in threads, and notes it in `known`."""
    todo: queue.SimpleQueue[Source] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Source, Entry | BaseException]] = queue.SimpleQueue()
    before = dict(known.entries)  # the threads read this one

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not fetcher.stop.is_set():
                source = todo.get_nowait()
                try:
                    done.put((source, _obtain(source, folder, fetcher, before.get(source.url), retry_missing)))
                except Exception as error:  # noqa: BLE001  # raised again in the main thread
                    done.put((source, error))

    for source in sources:
        todo.put(source)
    for _ in range(min(fetcher.retry_policy.threads, len(sources))):
        threading.Thread(target=work, daemon=True).start()  # a daemon, so that Ctrl-C need not wait for a silent server
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


def _obtain(source: Source, folder: Path, fetcher: Fetcher, known: Entry | None, retry_missing: bool) -> Entry:
    """The file as it is here, if that is whole; otherwise fetched."""
    target = folder / source.file
    if target.is_file():
        if known and known.state == "complete" and known.file == source.file:
            if target.stat().st_size == known.bytes:
                discard_part(target)
                return known
        else:
            with contextlib.suppress(BrokenFileError):
                return Entry(file=source.file, state="complete", **check_file(target, target.name)._asdict())
    elif known and known.state == "missing" and not retry_missing:
        return known
    try:
        origin, facts = fetcher.fetch(source.url, target)
    except MissingError as error:
        return Entry(file=source.file, state="missing", reason=str(error))
    except FailedError as error:
        return Entry(file=source.file, state="failed", reason=str(error))
    whole = Entry(file=source.file, state="complete", **facts._asdict())
    return replace(whole, etag=origin.etag, last_modified=origin.last_modified)
