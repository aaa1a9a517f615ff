"""How long a download waits: for a server that stalls, after Retry-After, and to keep to a rate.

Only lower bounds of times are checked, so that the tests hold on a loaded machine too.
"""

from __future__ import annotations

import email.utils
import threading
import time
from pathlib import Path

import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.zinc import transfer
from nemo_cmim.zinc.transfer import RetryPolicy
from tests.file_server import FileServer, Handler, stall_after, status
from tests.zinc.downloads import PATH, PATIENCE_S, SETTINGS, WHOLE, check_whole, fetch, molecules, wait_for


def test_a_stalled_download_times_out_and_resumes(server: FileServer, tmp_path: Path) -> None:
    """On a loaded machine an answer may also be late, so the number of requests is not fixed."""
    server.answers[PATH] = [stall_after(150_000), stall_after(150_000)]
    fetch(server, tmp_path, retry_policy=RetryPolicy(**{**SETTINGS, "read_timeout": 0.7, "attempts": 100}))
    check_whole(server, tmp_path)
    assert len(server.requests) >= 3 and server.requests[0].range is None and server.requests[-1].range is not None


def test_a_server_that_stalls_each_time_is_a_failure(server: FileServer, tmp_path: Path) -> None:
    server.answers[PATH] = [stall_after(10)] * 4
    with pytest.raises(
        DataError, match=r"1 of 1 files could not be downloaded, for example http.*BAAA\.smi.*timed out.*Run the same command again"
    ):
        fetch(server, tmp_path, retry_policy=RetryPolicy(**{**SETTINGS, "read_timeout": 0.3}))
    wait_for(lambda: len(server.requests) == 4)
    assert not (tmp_path / "BA" / "BAAA.smi").exists()


@pytest.mark.parametrize(("code", "as_date"), [(429, False), (503, True)])
def test_the_client_waits_as_retry_after_says(code: int, as_date: bool, server: FileServer, tmp_path: Path) -> None:
    def busy(handler: Handler) -> None:
        wait = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"  # dates have whole seconds
        status(code, b"", Retry_After=wait)(handler)

    server.answers[PATH] = [busy]
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    first, second = server.requests
    assert second.at - first.at >= 0.9


def test_retry_after_holds_for_the_other_threads(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, later = "/2D/CA/CAAA.smi", "/2D/DA/DAAA.smi"
    pause, paused = transfer._RateLimit.pause, threading.Event()
    monkeypatch.setattr(transfer._RateLimit, "pause", lambda limit, seconds: (pause(limit, seconds), paused.set()))
    server.files.update({path: molecules(10) for path in (slow, later)})
    server.answers[PATH] = [status(429, b"", Retry_After="1")]
    server.answers[slow] = [lambda handler: (paused.wait(PATIENCE_S), handler.serve())[0]]
    fetch(server, tmp_path, PATH, slow, later, retry_policy=RetryPolicy(**{**SETTINGS, "threads": 2}))
    assert server.requests_for(later)[0].at - server.requests_for(PATH)[0].at >= 0.9


@pytest.mark.parametrize(("limit", "seconds"), [({"requests_per_second": 20}, 0.45), ({"bytes_per_second": len(WHOLE)}, 0.7)])
def test_the_pace_is_kept(limit: dict[str, float], seconds: float, server: FileServer, tmp_path: Path) -> None:
    paths = [f"/2D/CA/{i}.smi" for i in range(10)] if "requests_per_second" in limit else [PATH]
    server.files.update({path: WHOLE if path == PATH else molecules(i) for i, path in enumerate(paths)})
    start = time.monotonic()
    fetch(server, tmp_path, *paths, retry_policy=RetryPolicy(**{**SETTINGS, **limit}))
    assert time.monotonic() - start >= seconds
    assert len(server.requests) == len(paths)
