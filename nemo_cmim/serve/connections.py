"""Connections that bring no request: a time limit for each, and a place for new ones while there are too many."""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

__all__ = ["connections"]

_SPARE = 64
"""Connections that are accepted beyond the limit, so that health is answered while all others are busy; see `Gate`."""


def connections(most: int, idle_timeout: float) -> type[asyncio.Protocol]:
    """The class of connections for uvicorn.

    A connection that has no request, or only part of its head, is closed after `idle_timeout`. If there are too many, a new one takes the
    place of the one that has waited longest.

    Args:
        most: Maximum number of open connections.
        idle_timeout: Seconds from the start, or from the last answer, to the end of the head of the next request.
    """
    return type("Connection", (_Connection,), {"waiting": {}, "most": most, "idle_timeout": idle_timeout})


class _Connection(H11Protocol):
    waiting: dict[_Connection, None]  # of all connections, in the order in which they began to wait
    most: int
    idle_timeout: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        excess = len(self.connections) - self.most
        if excess > 0:
            oldest = next(iter(self.waiting))
            if oldest is not self or excess > _SPARE:
                oldest.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()  # it may begin the next request, if that has arrived
        if not self.cycle.response_complete or self.transport.is_closing():
            self._stop_waiting()

    def close(self) -> None:
        """Closes a connection that has no request."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.close()

    def _wait(self) -> None:
        self._stop_waiting()
        self.waiting[self] = None
        self._timer = self.loop.call_later(self.idle_timeout, self._expire)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        has_part_of_a_head = bool(self.conn.trailing_data[0]) and self.conn.our_state is h11.IDLE
        if has_part_of_a_head:
            self._refuse(408, f"The head of the request did not arrive within {self.idle_timeout:g} s.")
        self.close()

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are not HTTP."""
        self._refuse(400, msg)
        self.close()

    def _refuse(self, status: int, detail: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return  # an answer has begun
        body = json.dumps({"detail": detail}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            ("Retry-After", "1"),
        ]
        events = (
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]), h11.Data(data=body), h11.EndOfMessage(),
        )  # fmt: skip
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
