"""Counters of the service in the text format of Prometheus; with several processes, the sums over all of them."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The counters of one process.

    With PROMETHEUS_MULTIPROC_DIR set, they are kept in files in that folder, and `text` adds up those of all processes.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._requests = Counter("nemo_cmim_requests", "Answered requests.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "nemo_cmim_request_seconds", "Time from the first byte to the answer.", ["path"], buckets=_SECONDS, registry=registry
        )
        self._batch_requests = Histogram(
            "nemo_cmim_batch_requests", "Requests that were computed together.", buckets=_SIZES, registry=registry
        )
        self._batch_molecules = Histogram(
            "nemo_cmim_batch_molecules", "Molecules that were computed together.", buckets=_SIZES, registry=registry
        )
        self._waiting = Gauge("nemo_cmim_waiting", "Requests in the queue.", registry=registry, multiprocess_mode="livesum")
        self._left = Counter("nemo_cmim_left", "Clients that left before their answer.", registry=registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, requests: int, molecules: int) -> None:
        """Counts a batch."""
        self._batch_requests.observe(requests)
        self._batch_molecules.observe(molecules)

    def left(self) -> None:
        """Counts a client that left."""
        self._left.inc()

    def waiting(self, requests: int) -> None:
        """Sets the length of the queue."""
        self._waiting.set(requests)

    def text(self) -> bytes:
        """All counters."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)
