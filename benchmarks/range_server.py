"""HTTP server of a folder with range requests, which Python's own server does not support: a substitute for object storage.

    python -m benchmarks.range_server FOLDER

prints its URL and runs until it is terminated.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["RangeServer"]


class RangeServer(ThreadingHTTPServer):
    """Serves the files of a folder.

    Attributes:
        url: URL of the folder.
        requests: Number of answered requests for each file, including failures.
        failures: For each file, the number of further requests to answer with status 500.
        ranges: If False, ranges are ignored, as by simple servers.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.ranges = True
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection in a thread of its own."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection after its last request."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Closes the server and the connections that clients have kept open, which would otherwise stay open as long as they do."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # closed meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    server: RangeServer

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.requests[name] += 1
        path = self.server.folder / name
        if self.server.failures[name] > 0:
            self.server.failures[name] -= 1
            return self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"")
        if not path.is_file():
            return self._answer(HTTPStatus.NOT_FOUND, b"")
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.server.ranges else None
        start, stop = (int(asked[1]), min(int(asked[2] or size), size - 1) + 1) if asked else (0, size)
        content_range = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if asked else {}
        if self.command == "HEAD":
            return self._answer(HTTPStatus.OK, b"", {"Accept-Ranges": "bytes", "Content-Length": str(size)})
        with path.open("rb") as file:
            content = os.pread(file.fileno(), stop - start, start)
        return self._answer(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, content, content_range)

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Writes no log."""


if __name__ == "__main__":
    server = RangeServer(Path(sys.argv[1]))
    print(server.url, flush=True)
    server.serve_forever()
