"""Runs the service in this process: the server, its signals, its log."""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import uvicorn

from ..errors import ConfigError
from ..inference.threads import thread_count
from .app import create_app
from .connections import connections
from .settings import ServeSettings

__all__ = ["listening_socket", "raise_file_limit", "run", "set_up_log"]

_OTHER_FILES = 256  # of the process, and connections beyond the limit


class _Server(uvicorn.Server):
    """A server that drains after the first SIGTERM or SIGINT, and ends at once after a second one; then `run` returns."""

    got: int | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's handlers, which raise the signal once more at the end."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.got is not None and self.got == number == signal.SIGINT
        self.got, self.should_exit = number, True


def listening_socket(settings: ServeSettings) -> socket.socket:
    """The socket on which the service listens.

    Raises:
        ConfigError: If the host is unknown.
        OSError: If the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"The host {settings.host!r} is unknown: {error.strerror}.") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    listening.set_inheritable(True)
    return listening


def raise_file_limit(connections: int) -> None:
    """Allows this process so many open connections, as far as the system permits; often only 1,024 files may be open."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(connections + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def set_up_log() -> None:
    """Lines of the service on stderr. The access log of uvicorn is off, since queries can contain SMILES."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    for name in ("nemo_cmim.serve", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO if name == "nemo_cmim.serve" else logging.WARNING)
    warnings.simplefilter("ignore")  # their texts can contain SMILES


def run(
    settings: ServeSettings, listening: socket.socket, all_ready: Callable[[bool], bool] = lambda is_ready: is_ready
) -> int | None:
    """Serves until SIGTERM or SIGINT, then answers the requests that have arrived.

    Args:
        settings: Settings of the service.
        listening: The socket.
        all_ready: See `create_app`.

    Returns:
        The signal, or None.

    Raises:
        Exception: An error of loading the model.
    """
    raise_file_limit(settings.max_connections)
    torch.set_num_threads(settings.threads or max(1, thread_count() // settings.workers))
    failures: list[Exception] = []

    def on_failure(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(settings, all_ready=all_ready, on_failure=on_failure),
        http=connections(settings.max_connections, settings.idle_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        backlog=2048,
    )
    server = _Server(config)
    server.run(sockets=[listening])
    if failures:
        raise failures[0]
    return server.got
