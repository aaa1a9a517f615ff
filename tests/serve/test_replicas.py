"""Two replicas behind a load balancer: one is stopped, one is killed, and each request is answered."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from nemo_cmim.inference import CMIMModel
from tests.serve.running import PATIENCE_S, Service

SMILES = ["CCO", "c1ccccc1O", "CCN"]


@contextmanager
def balancer(replicas: list[str]) -> Iterator[str]:
    """Sends each request to the replicas in turn, and to the next one after an error or 503."""
    turn = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body, start, answer = self.rfile.read(int(self.headers["Content-Length"])), next(turn), None
            for i in range(2 * len(replicas)):
                url = replicas[(start + i) % len(replicas)]
                with suppress(httpx.TransportError):
                    answer = httpx.post(
                        f"{url}{self.path}", content=body, headers={"Content-Type": "application/json"}, timeout=PATIENCE_S
                    )
                    if answer.status_code not in (502, 503):
                        break
            self.send_response(502 if answer is None else answer.status_code)
            content = b"" if answer is None else answer.content
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_each_request_is_answered_while_a_replica_ends(
    model_file: Path, model: CMIMModel, tmp_path: Path, number: signal.Signals
) -> None:
    expected = model.embed(SMILES, "mean")
    with Service(tmp_path, model_file) as first, Service(tmp_path, model_file) as second:
        fingerprints = {httpx.get(f"{each.wait().url}/v1/metadata").json()["model"]["fingerprint"] for each in (first, second)}
        assert len(fingerprints) == 1
        with balancer([first.url, second.url]) as url, ThreadPoolExecutor(4) as pool:

            def ask(i: int) -> tuple[int, list[float]]:
                if i == 20:
                    first.process.send_signal(number)
                answer = httpx.post(f"{url}/embedding", json={"sequences": [SMILES[i % 3]]}, timeout=PATIENCE_S)
                assert answer.status_code == 200, answer.text
                return i, answer.json()["embeddings"][0]

            for i, found in pool.map(ask, range(60)):
                np.testing.assert_allclose(found, expected[i % 3], rtol=1e-4, atol=1e-5)
        first.process.wait(PATIENCE_S)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", first.port), timeout=5)
