from __future__ import annotations

import gzip
import json
import lzma
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.zinc import transfer
from nemo_cmim.zinc.download import Entry, download
from nemo_cmim.zinc.transfer import RetryPolicy
from nemo_cmim.zinc.url_lists import Source
from tests.file_server import Answer, FileServer, drop_after, hang_up, ignore_range, replace_file, serving, stall_after, status
from tests.interrupts import heed_interrupts
from tests.zinc.downloads import HASTY, PATH, PATIENCE_S, WHOLE, check_whole, entry_of, fetch, molecules, wait_for

PAGE = b"<!DOCTYPE html><html><body>Not found</body></html>\n"


def test_a_good_server(server: FileServer, tmp_path: Path) -> None:
    server.files.update({f"/2D/CA/CAA{c}.smi": molecules(10, c) for c in "ABC"})
    result = fetch(server, tmp_path, PATH, *(f"/2D/CA/CAA{c}.smi" for c in "ABC"))
    check_whole(server, tmp_path)
    assert [(tmp_path / "CA" / f"CAA{c}.smi").read_bytes() for c in "ABC"] == [molecules(10, c) for c in "ABC"]
    size = sum(map(len, server.files.values()))
    assert result.counts == {"complete": 4, "missing": 0, "failed": 0, "bytes": size, "lines": 20_034}
    assert entry_of(server, tmp_path).etag == '"one"'
    assert len(server.requests) == 4 and {request.encoding for request in server.requests} == {"identity"}
    manifest = json.loads((tmp_path / "downloads.json").read_text())
    assert manifest["counts"] == result.counts and list(manifest["files"][server.url(PATH)]) == list(Entry.__annotations__)


def test_running_again_fetches_only_what_is_not_there(server: FileServer, tmp_path: Path) -> None:
    server.files["/2D/CA/CAAA.smi"] = molecules(10)
    first = fetch(server, tmp_path, PATH, "/2D/CA/CAAA.smi", "/2D/no.smi")
    assert fetch(server, tmp_path, PATH, "/2D/CA/CAAA.smi", "/2D/no.smi") == first
    assert len(server.requests) == 3
    (tmp_path / "CA" / "CAAA.smi").unlink()
    (tmp_path / "BA" / "BAAA.smi").write_bytes(WHOLE[:-100])
    fetch(server, tmp_path, PATH, "/2D/CA/CAAA.smi")
    check_whole(server, tmp_path)
    assert (tmp_path / "CA" / "CAAA.smi").read_bytes() == molecules(10)
    assert len(server.requests) == 5
    assert entry_of(server, tmp_path, "/2D/no.smi").state == "missing"  # what other runs found is kept


def test_a_file_without_an_entry_is_checked_and_taken(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "BA").mkdir()
    (tmp_path / "BA" / "BAAA.smi").write_bytes(WHOLE)
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    assert server.requests == []
    (tmp_path / "downloads.json").unlink()
    (tmp_path / "BA" / "BAAA.smi").write_bytes(WHOLE[:-3])
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("bad", "etag"),
    [
        (drop_after(150_000), '"one"'),
        (drop_after(150_000), 'W/"one"'),
        (drop_after(150_000), None),
    ],
    ids=["strong ETag", "weak ETag", "no ETag"],
)
def test_a_try_goes_on_where_the_last_ended(bad: Answer, etag: str | None, server: FileServer, tmp_path: Path) -> None:
    server.etags = {} if etag is None else {PATH: etag}
    server.answers[PATH] = [bad, bad]
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    first, second, third = server.requests
    assert first.range is None and second.range is not None and third.range is not None
    starts = [int(request.range.removeprefix("bytes=").removesuffix("-")) for request in (second, third) if request.range]
    assert 64 << 10 <= starts[0] <= 150_000 < starts[1] <= 300_000
    assert {second.if_range, third.if_range} == {etag if etag == '"one"' else None}  # a weak one cannot be used


@pytest.mark.parametrize(
    "answers",
    [
        [hang_up, hang_up],
        [status(500), status(503), status(408)],
        [status(200, PAGE)],
        [status(200, WHOLE[:-1])],
        [status(200, WHOLE + b"CCO\n")],
        [status(200, b"")],
        [drop_after(0), drop_after(10), drop_after(100_000)],
        [drop_after(100_000), ignore_range],
        [drop_after(100_000), status(416)],
        [drop_after(100_000), status(206, WHOLE[50:], Content_Range=f"bytes 50-{len(WHOLE) - 1}/{len(WHOLE)}")],
        [drop_after(100_000), status(206, b"x")],
        [drop_after(100_000), status(500), drop_after(100_000)],
    ],
    ids=str,
)
def test_faults_that_pass(answers: list[Answer], server: FileServer, tmp_path: Path) -> None:
    server.answers[PATH] = list(answers)
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    assert len(server.requests) >= len(answers)


@pytest.mark.parametrize("old_etag", ['"one"', 'W/"one"', None])
def test_a_file_that_changes_between_two_tries(old_etag: str | None, server: FileServer, tmp_path: Path) -> None:
    new = molecules(20_000, "C")
    server.etags = {} if old_etag is None else {PATH: old_etag}
    server.answers[PATH] = [drop_after(150_000), replace_file(new, '"two"')]
    fetch(server, tmp_path)
    check_whole(server, tmp_path, new)
    assert entry_of(server, tmp_path).etag == '"two"'


def test_a_try_that_ended_after_the_last_byte(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "BA").mkdir()
    (tmp_path / "BA" / "BAAA.smi.part").write_bytes(WHOLE)
    origin = {"url": server.url(PATH), "etag": '"one"', "last_modified": None, "length": None}
    (tmp_path / "BA" / "BAAA.smi.part.json").write_text(json.dumps(origin))
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    assert [request.range for request in server.requests] == [f"bytes={len(WHOLE)}-"]


@pytest.mark.parametrize("about", [None, "", "{}", '{"url": "http://elsewhere/", "etag": "1"}'])
def test_a_part_of_unknown_origin_is_not_gone_on_from(about: str | None, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "BA").mkdir()
    (tmp_path / "BA" / "BAAA.smi.part").write_bytes(b"x" * 1000)
    if about is not None:
        (tmp_path / "BA" / "BAAA.smi.part.json").write_text(about)
    fetch(server, tmp_path)
    check_whole(server, tmp_path)
    assert [request.range for request in server.requests] == [None]


@pytest.mark.parametrize("code", [404, 410])
def test_a_missing_file_is_no_error(code: int, server: FileServer, tmp_path: Path) -> None:
    server.answers[PATH] = [status(code)]
    result = fetch(server, tmp_path)
    assert [(entry.state, entry.reason) for entry in result.entries.values()] == [("missing", f"HTTP status {code}")]
    assert fetch(server, tmp_path).counts["missing"] == len(server.requests) == 1
    assert fetch(server, tmp_path, retry_missing=True).counts["complete"] == 1
    check_whole(server, tmp_path)


@pytest.mark.parametrize(
    ("answer", "reason", "tries"),
    [
        (status(200, PAGE), "the file is a web page", 4),
        (status(200, molecules(10) + b"CCO"), "the last line has no line end", 4),
        (status(200, molecules(10) + b"CCO\n"), "the last line has 1 columns, but the line before has 2", 4),
        (status(200, b""), "the file is empty", 4),
        (drop_after(10), r"the connection ended after \d+ of \d+ bytes", 4),
        (hang_up, "ConnectionError", 4),
        (status(500), "HTTP status 500", 4),
        (status(403), "HTTP status 403", 1),
        (status(206, b"x"), "HTTP status 206", 1),
        (status(200, gzip.compress(WHOLE), Content_Encoding="gzip"), "content encoding gzip", 1),
        (status(302, b"", Location="ftp://127.0.0.1/BAAA.smi"), "ftp://", 1),
        (status(429, b"", Retry_After="3601"), "asks to wait 3601 s", 1),
    ],
)
def test_faults_that_stay(answer: Answer, reason: str, tries: int, server: FileServer, tmp_path: Path) -> None:
    server.files["/2D/CA/CAAA.smi"] = molecules(10)
    server.answers[PATH] = [answer] * 4
    message = r"1 of 2 files could not be downloaded, for example http.*BAAA\.smi.*Run the same command again"
    with pytest.raises(DataError, match=message):
        fetch(server, tmp_path, PATH, "/2D/CA/CAAA.smi")
    assert len(server.requests_for(PATH)) == tries
    assert not (tmp_path / "BA" / "BAAA.smi").exists()
    failed, whole = entry_of(server, tmp_path), entry_of(server, tmp_path, "/2D/CA/CAAA.smi")
    assert (failed.state, whole.state) == ("failed", "complete")
    assert re.search(reason, failed.reason)
    server.answers.clear()
    fetch(server, tmp_path, PATH, "/2D/CA/CAAA.smi")
    check_whole(server, tmp_path)
    assert len(server.requests_for("/2D/CA/CAAA.smi")) == 1


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with serving() as server:
        url = server.url(PATH)
    with pytest.raises(DataError, match="ConnectionError"):
        download([Source(url, "a.smi")], tmp_path, retry_policy=HASTY, progress=False)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_files_are_read_through(pack: Callable[[bytes], bytes], server: FileServer, tmp_path: Path) -> None:
    path = "/2D/BA/BAAA.smi.gz" if pack is gzip.compress else "/2D/BA/BAAA.smi.xz"
    packed = pack(WHOLE)
    server.files[path] = packed
    server.answers[path] = [
        status(200, packed[:-20]),
        status(200, pack(WHOLE[:-1])),
        status(200, packed, Content_Encoding="gzip"),  # some servers say so, and mean the file
    ]
    fetch(server, tmp_path, path)
    entry = entry_of(server, tmp_path, path)
    assert (entry.bytes, entry.lines, len(server.requests)) == (len(packed), WHOLE.count(b"\n"), 3)
    assert (tmp_path / entry.file).read_bytes() == packed


def test_a_url_that_is_named_twice_is_fetched_once(server: FileServer, tmp_path: Path) -> None:
    assert fetch(server, tmp_path, PATH, PATH).counts["complete"] == len(server.requests) == 1


def test_two_urls_to_one_file_are_refused(tmp_path: Path) -> None:
    sources = [Source("http://x/a.smi", "a.smi"), Source("http://y/a.smi", "a.smi")]
    with pytest.raises(ConfigError, match=r"http://x/a\.smi and http://y/a\.smi have the same file a\.smi"):
        download(sources, tmp_path / "out")


def test_a_file_is_not_taken_for_that_of_another_url(server: FileServer, tmp_path: Path) -> None:
    (url, entry), *_ = fetch(server, tmp_path, PATH).entries.items()
    with pytest.raises(ConfigError, match=f"{url} and http://other.invalid/a.smi have the same file {entry.file}. Download one"):
        download([Source("http://other.invalid/a.smi", entry.file)], tmp_path, retry_policy=HASTY, progress=False)


@pytest.mark.parametrize("name", ["threads", "read_timeout", "bytes_per_second"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_manners_are_checked(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be positive, found {value}"):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "nemo_cmim downloads 1", "files": {"http://x/a": {"size": 1}}}'])
def test_a_damaged_manifest(content: str, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "downloads.json").write_text(content)
    with pytest.raises(DataError, match=r"downloads\.json is damaged.*Remove downloads\.json"):
        fetch(server, tmp_path)
    assert (tmp_path / "downloads.json").read_text() == content


def test_without_requests(monkeypatch: pytest.MonkeyPatch, server: FileServer, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ConfigError, match=r"pip install 'nemo_cmim\[data\]'"):
        fetch(server, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, whose disk is always full")
def test_a_full_disk_ends_it_at_once(monkeypatch: pytest.MonkeyPatch, server: FileServer, tmp_path: Path) -> None:
    start = transfer._PartFile.start
    monkeypatch.setattr(transfer._PartFile, "start", lambda part, origin: (start(part, origin), part.path.symlink_to("/dev/full")))
    others = [f"/2D/CA/{i}.smi" for i in range(1000)]
    over = threading.Event()
    server.answers.update({path: [lambda handler: (over.wait(PATIENCE_S), handler.serve())[0]] for path in others})
    with pytest.raises(DataError, match=r"disk of .* is full\. Free some space"):
        fetch(server, tmp_path, PATH, *others)
    assert len(server.requests) <= 1 + HASTY.threads, "one file per thread, and the one that failed"
    over.set()
    monkeypatch.undo()
    fetch(server, tmp_path)
    check_whole(server, tmp_path)


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        fetch(server, tmp_path / "file")
    (tmp_path / "BA").touch()
    with pytest.raises(DataError, match="cannot be written"):
        fetch(server, tmp_path)


def start(server: FileServer, folder: Path, *options: str) -> subprocess.Popen[str]:
    """The real command; `BAAA` of this server."""
    command = [sys.executable, "-m", "nemo_cmim.cli", "download", "BAAA", "--base", server.url("/2D"), "-o", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_run_again(how: signal.Signals, server: FileServer, tmp_path: Path) -> None:
    server.answers[PATH] = [stall_after(300_000)]
    process = start(server, tmp_path)
    part = tmp_path / "BA" / "BAAA.smi.part"
    wait_for(lambda: part.is_file() and part.stat().st_size >= 4 * 65536)
    with pytest.raises(ConfigError, match=rf"in use by process {process.pid}"):
        fetch(server, tmp_path)
    process.send_signal(how)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert "Traceback" not in said and ("Rerun to resume" in said) == (how == signal.SIGINT)
    here = part.stat().st_size
    assert part.read_bytes() == WHOLE[:here]

    again = start(server, tmp_path)
    out, _ = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0 and f"1 files complete (20,001 lines, {len(WHOLE):,} bytes)" in out
    check_whole(server, tmp_path)
    first, second = server.requests
    assert (first.range, second.range, second.if_range) == (None, f"bytes={here}-", '"one"')


def test_the_command(server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [server.url(path) for path in (PATH, "/2D/CA/CAAA.smi", "/2D/DA/DAAA.smi", PATH)]
    (tmp_path / "list.uri").write_text("\n".join(lines))
    server.files["/2D/CA/CAAA.smi"] = b"CCO 1\n"
    options = ["--requests-per-second", "inf", "--bytes-per-second", "1e9", "--attempts", "1", "--threads", "2"]
    command = ["download", str(tmp_path / "list.uri"), "BAAA", "--base", server.url("/2D"), "-o", str(tmp_path / "out"), *options]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "2 files complete (20,002 lines" in said.out and "missing on the server: DA/DAAA.smi\n" in said.out
    assert "list.uri: 1 duplicate lines" in said.err and "3/3" in said.err
    server.answers["/2D/DA/DAAA.smi"] = [status(500)]
    assert main([*command, "--retry-missing"]) == 2
    assert "1 of 3 files could not be downloaded, for example http" in capsys.readouterr().err
