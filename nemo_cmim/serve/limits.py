"""The gate in front of the endpoints, as ASGI middleware: key, type, size and time of bodies, log lines and counters.

Nothing of a request but its method, its known path and its status is logged: SMILES can be in a body, in an unknown path, or in a query.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from .metrics import Metrics
from .settings import ServeSettings

__all__ = ["BODY", "Gate", "known_paths", "refusal"]

BODY = "nemo_cmim.body"
"""Key of the body in the scope of a request."""

_log = logging.getLogger("nemo_cmim.serve")
_HEALTH = ("/v1/health/live", "/v1/health/ready")
_PUBLIC = (*_HEALTH, "/docs", "/openapi.json")  # no key is needed: a page cannot send one before it is open, and they hold no data
_DRAINED = 2**30  # bytes of a body that is too large: they are read and discarded, so that the client can read the answer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Refused(Exception):
    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


class _Left(Exception):
    """The client closed its connection."""


def refusal(status: int, detail: str, **headers: str) -> Response:
    """An answer that says why a request is not computed."""
    return JSONResponse({"detail": detail}, status, {name.replace("_", "-"): value for name, value in headers.items()})


class Gate:
    """Lets requests pass that are small enough, in time and authorised, with their body in the scope.

    Args:
        app: The endpoints.
        settings: Limits and key.
        metrics: Where answers are counted.
        paths: Known paths; those with a body map to True.
    """

    def __init__(self, app: App, settings: ServeSettings, metrics: Metrics, paths: dict[str, bool]) -> None:
        self._app, self._settings, self._metrics, self._paths = app, settings, metrics, paths
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._hosts = settings.hosts
        self._held = 0  # bytes of bodies that are being read
        self._open = 0  # requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        self._open += 1
        path = scope["path"] if scope["path"] in self._paths else "unknown"

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, watched)
        except _Left:
            pass
        except asyncio.CancelledError:  # by the server, at the end of the time for open requests
            if not status:
                await refusal(503, "The service is stopping.", Retry_After="2", Connection="close")(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  # its message may contain SMILES, so that it is not left to the server's log
            where = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("%s at %s:%d", type(error).__name__, where.filename.rpartition("/")[2], where.lineno or 0)
            if not status:
                await refusal(500, "Internal error. The log of the service has its place.")(scope, receive, watched)
        finally:
            self._open -= 1
            seconds = time.perf_counter() - start
            if status:
                self._metrics.answered(path, status, seconds)
            else:
                self._metrics.left()
            level = logging.DEBUG if path in _HEALTH else logging.INFO
            _log.log(level, "%s %s %s %.1f ms", scope["method"][:10], path, status or "left", 1e3 * seconds)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            if self._hosts is not None and _name_of(headers.get("host", "localhost")) not in self._hosts:
                message = (
                    "The header Host has a name that is not allowed. Use localhost, or start the service with --allowed-host NAME."
                )
                raise _Refused(refusal(421, message))
            if self._open > self._settings.max_connections and scope["path"] not in _HEALTH:
                raise _Refused(refusal(503, "Too many requests are open.", Retry_After="1", Connection="close"))
            if self._key is not None and scope["path"] not in _PUBLIC and not self._has_key(headers):
                message = "The API key is missing or wrong. Send it as `Authorization: Bearer KEY`."
                raise _Refused(refusal(401, message, WWW_Authenticate="Bearer"))
            if scope["method"] == "POST" and self._paths.get(scope["path"]):
                self._check_type(headers)
                scope[BODY] = await self._body(headers, receive)
        except _Refused as refused:
            await refused.answer(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the answer to GET, whose body the server leaves out
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        given = value if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(given.strip().encode(errors="replace"), self._key or b"")

    def _check_type(self, headers: Headers) -> None:
        """A page of another site can send a form or text without asking, but not JSON."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise _Refused(refusal(415, "The body must be JSON. Send `Content-Type: application/json`."))
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refused(refusal(415, "Compressed bodies are not accepted."))

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        limit, timeout = self._settings.max_bytes, self._settings.body_timeout
        length = headers.get("content-length", "0")
        is_large = not length.isdecimal() or len(length) > 18 or int(length) > limit
        too_large = _Refused(refusal(413, f"A body may have at most {limit} bytes.", Connection="close"))
        if is_large and headers.get("expect", "").lower() == "100-continue":  # the client has not sent it yet
            raise too_large
        reader = _Reader(limit, is_large, self)
        try:
            await asyncio.wait_for(reader.read(receive), timeout)
        except asyncio.TimeoutError:
            if not reader.is_large:
                raise _Refused(refusal(408, f"The body did not arrive within {timeout:g} s.", Connection="close")) from None
        finally:
            self.release(reader.held)
        if reader.is_large:
            raise too_large
        return b"".join(reader.chunks)

    def hold(self, size: int) -> None:
        """Counts bytes that are kept."""
        if self._held + size > max(self._settings.max_pending_bytes, self._settings.max_bytes):
            raise _Refused(refusal(503, "Too many large bodies are being sent.", Retry_After="1", Connection="close"))
        self._held += size

    def release(self, size: int) -> None:
        """Counts bytes that are no longer kept."""
        self._held -= size


class _Reader:
    """Reads one body; discards it if it is too large."""

    def __init__(self, limit: int, is_large: bool, gate: Gate) -> None:
        self.is_large, self.held = is_large, 0
        self.chunks: list[bytes] = []
        self._limit, self._gate = limit, gate

    async def read(self, receive: Receive) -> None:
        """Reads until the end, or until enough was discarded."""
        size, has_more = 0, True
        while has_more and size < _DRAINED:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Left
            chunk, has_more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if self.is_large or size > self._limit:
                self.is_large = True
                self.chunks.clear()
            elif chunk:
                self._gate.hold(len(chunk))
                self.held += len(chunk)
                self.chunks.append(chunk)


def _name_of(host: str) -> str:
    """The name in a header `Host`, without the port: `[::1]` for `[::1]:8000`."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def known_paths(with_body: Collection[str], without_body: Collection[str]) -> dict[str, bool]:
    """The paths for `Gate`."""
    return dict.fromkeys(without_body, False) | dict.fromkeys(with_body, True)
