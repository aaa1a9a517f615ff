"""Applications in this process, with an event loop, and services in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from nemo_cmim.inference import CMIMModel
from nemo_cmim.serve.app import create_app
from nemo_cmim.serve.settings import ServeSettings

PATIENCE_S = 120  # for a process on a busy machine; never a measure of speed


@contextlib.contextmanager
def client_of(model: CMIMModel, **settings: Any) -> Iterator[TestClient]:
    """A client of an application with this model, once it is ready."""
    with TestClient(create_app(ServeSettings(**settings), loader=lambda: model), "http://localhost") as client:

        def status() -> int:
            assert client.get("/v1/health/live").status_code == 200, "the model could not be loaded"
            return client.get("/v1/health/ready").status_code

        wait_until_ready(status)
        yield client


def wait_until_ready(status: Any) -> None:
    """Waits until `status()` is 200."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if status() == 200:
                return
        assert time.monotonic() < limit, "the service did not become ready"
        time.sleep(0.02)


class Service:
    """`nemo-cmim serve` in a process of its own, with its log in a file."""

    def __init__(self, folder: Path, model: Path, *options: str, port: int = 0, **variables: str) -> None:
        self.log = folder / f"serve-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "nemo_cmim.cli", "serve", "--model", str(model), "--device", "cpu", "--threads", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        self._err = self.log.open("wb")
        self.process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=self._err,
            env=environment,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip().removesuffix("/docs")
        assert self.url.startswith("http://"), self.log.read_text()
        self.port = int(self.url.rpartition(":")[2])

    def wait(self) -> Service:
        """Waits until the service is ready."""

        def status() -> int:
            assert self.process.poll() is None, self.log.read_text()
            return httpx.get(f"{self.url}/v1/health/ready", timeout=PATIENCE_S).status_code

        wait_until_ready(status)
        return self

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        """The answer to a request with a JSON body."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=PATIENCE_S, **more)

    def connect(self) -> socket.socket:
        """A connection for bytes that no client library sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self._err.close()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.end()


def raw_request(path: str, headers: dict[str, str]) -> bytes:
    """The head of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def raw_answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON body of an answer that ends with its connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
