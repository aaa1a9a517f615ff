"""Downloads from a server of this process: the settings, the calls and the checks that the tests share."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_cmim.zinc.download import Downloads, Entry, download
from nemo_cmim.zinc.transfer import RetryPolicy
from nemo_cmim.zinc.url_lists import Source
from tests.file_server import FileServer

__all__ = ["HASTY", "PATH", "PATIENCE_S", "SETTINGS", "WHOLE", "check_whole", "entry_of", "fetch", "molecules", "wait_for"]

PATIENCE_S = 120.0  # until a test gives up; nothing waits so long unless it fails
SETTINGS: dict[str, Any] = {
    "read_timeout": PATIENCE_S,
    "backoff": 0.005,
    "attempts": 4,
    "requests_per_second": 1e4,
    "bytes_per_second": 1e9,
}
HASTY = RetryPolicy(**SETTINGS)
PATH = "/2D/BA/BAAA.smi"


def molecules(lines: int, tail: str = "") -> bytes:
    return "".join(["smiles zinc_id\n", *(f"{'C' * (i % 50 + 1)}O{tail} {i}\n" for i in range(lines))]).encode()


WHOLE = molecules(20_000)  # several of the chunks in which a body is written


def fetch(
    server: FileServer, folder: Path, *paths: str, retry_policy: RetryPolicy = HASTY, retry_missing: bool = False
) -> Downloads:
    sources = [Source(server.url(path), path.removeprefix("/2D/")) for path in paths or (PATH,)]
    return download(sources, folder, retry_policy=retry_policy, retry_missing=retry_missing, progress=False)


def entry_of(server: FileServer, folder: Path, path: str = PATH) -> Entry:
    return Downloads.load(folder).entries[server.url(path)]


def check_whole(server: FileServer, folder: Path, content: bytes = WHOLE) -> None:
    """The file is in place, nothing else is, and the manifest knows it."""
    assert (folder / "BA" / "BAAA.smi").read_bytes() == content
    assert os.listdir(folder / "BA") == ["BAAA.smi"]
    entry = entry_of(server, folder)
    assert (entry.state, entry.bytes, entry.lines) == ("complete", len(content), content.count(b"\n"))
    assert entry.sha256 == hashlib.sha256(content).hexdigest()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
