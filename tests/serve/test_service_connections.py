"""Connections that bring no request do not keep out those that do."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nemo_cmim.serve.run import raise_file_limit
from tests.serve.running import PATIENCE_S, Service, raw_answer, raw_request

MOST = 20


@pytest.fixture(scope="module")
def service(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = ("--max-connections", str(MOST), "--idle-timeout", "3", "--body-timeout", str(PATIENCE_S))
    with Service(tmp_path_factory.mktemp("connections"), model_file, *options) as service:
        yield service.wait()


@contextlib.contextmanager
def connections(service: Service, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(service.connect()) for _ in range(count)]
        for each in opened:
            with contextlib.suppress(OSError):  # it has already given way
                each.sendall(sent)
        yield opened


@pytest.mark.parametrize("sent", [b"", b"POST /embedding HTTP/1.1\r\nHost: localhost\r\nX: "], ids=["silent", "part of a head"])
def test_idle_connections_give_way(service: Service, sent: bytes) -> None:
    with connections(service, 10 * MOST, sent):
        for _ in range(3):
            assert service.post("/embedding", {"sequences": ["CCO"]}).status_code == 200
            assert httpx.get(f"{service.url}/v1/health/ready", timeout=PATIENCE_S).status_code == 200


def test_idle_connections_are_closed(service: Service) -> None:
    with connections(service, 2, b"") as opened:
        assert [each.recv(100) for each in opened] == [b"", b""]


def test_the_head_of_a_request_has_a_time_limit(service: Service) -> None:
    with connections(service, 1, b"GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\n") as (slow,):
        while not select.select([slow], [], [], 0.05)[0]:  # more bytes do not extend it
            slow.sendall(b"X: y\r\n")
        status, found = raw_answer(slow)
        assert status == 408 and "within 3 s" in found["detail"]


def test_bytes_that_are_not_http_get_an_answer(service: Service) -> None:
    with connections(service, 1, b"hello\r\n\r\n") as (wrong,):
        assert raw_answer(wrong) == (400, {"detail": "Invalid HTTP request received."})


def test_health_answers_while_all_connections_are_busy(service: Service) -> None:
    slow = raw_request("/embedding", {"Content-Length": "1000"}) + b'{"sequences"'
    with contextlib.ExitStack() as stack:
        stack.enter_context(connections(service, MOST, slow))
        limit = time.monotonic() + PATIENCE_S
        while (answer := service.post("/embedding", {"sequences": ["CCO"]})).status_code == 200:
            assert time.monotonic() < limit
            # A connection whose head had not arrived has given way to the request.
            stack.enter_context(connections(service, 1, slow))
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json() == {"detail": "Too many requests are open."}
        for path in ("live", "ready"):
            assert httpx.get(f"{service.url}/v1/health/{path}", timeout=PATIENCE_S).status_code == 200
    while service.post("/embedding", {"sequences": ["CCO"]}).status_code != 200:  # their ends have not arrived
        assert time.monotonic() < limit


def test_one_connection_serves_pipelined_requests(service: Service) -> None:
    request = b"GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with connections(service, 1, request * 3 + last) as (one,):
        received = b""
        while chunk := one.recv(65536):
            received += chunk
        assert received.count(b"HTTP/1.1 200") == 4


def test_as_many_files_may_be_open_as_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        raise_file_limit(500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 500
        raise_file_limit(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 500  # it is not lowered
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
