"""A local HTTP server that serves files, or answers with the faults that a test sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Answer = Callable[["Handler"], None]


class Request(NamedTuple):
    path: str
    range: str | None
    if_range: str | None
    encoding: str | None
    at: float


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path. `answers` are used first: one for each of the next requests of a path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def requests_for(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores errors: clients may close a connection at any time."""


class Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        head = self.headers
        seen = Request(self.path, head["Range"], head["If-Range"], head["Accept-Encoding"], time.monotonic())
        self.server.requests.append(seen)
        answers = self.server.answers.get(self.path)
        if answers:
            answers.pop(0)(self)
        else:
            self.serve()

    def serve(self, *, limit: int | None = None, ignore_range: bool = False) -> bool:
        """Sends the file, or its first `limit` bytes. Returns False if there is no such file."""
        content = self.server.files.get(self.path)
        if content is None:
            self.respond(404, b"no such file")
            return False
        etag = self.server.etags.get(self.path)
        start, stop, requested = 0, len(content), self.headers["Range"]
        if requested and not ignore_range and self.headers["If-Range"] in (None, etag):
            first, _, last = requested.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, stop) if last else stop
        if start and start >= len(content):
            self.respond(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return True
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"} if start else {}
        self.respond(206 if start else 200, content[start:stop], {**span, **({"ETag": etag} if etag else {})}, limit)
        return True

    def respond(self, status: int, body: bytes, headers: dict[str, str] | None = None, limit: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:limit])
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        """Logs nothing."""


def status(code: int, body: bytes = b"sorry", **headers: str) -> Answer:
    return lambda handler: handler.respond(code, body, {name.replace("_", "-"): value for name, value in headers.items()})


def drop_after(size: int) -> Answer:
    """Sends the first bytes, then closes the connection."""

    def answer(handler: Handler) -> None:
        handler.serve(limit=size)
        handler.close_connection = True

    return answer


def stall_after(size: int) -> Answer:
    """Sends the first bytes, then nothing, and keeps the connection open until the server is closed."""

    def answer(handler: Handler) -> None:
        handler.serve(limit=size)
        handler.close_connection = True
        handler.server.closing.wait()

    return answer


def hang_up(handler: Handler) -> None:
    """Closes the connection without a response."""
    handler.close_connection = True


def ignore_range(handler: Handler) -> None:
    handler.serve(ignore_range=True)


def replace_file(content: bytes, etag: str) -> Answer:
    """Changes the file before it is served."""

    def answer(handler: Handler) -> None:
        handler.server.files[handler.path], handler.server.etags[handler.path] = content, etag
        handler.serve()

    return answer


@contextmanager
def serving() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
