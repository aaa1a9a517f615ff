"""From a body to an answer: validation, the queue, the deadline, and clients that leave."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from pydantic_core import to_json
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from ..inference.sampling import ATTEMPTS
from .jobs import Decode, Dropped, Embed, Generate, Hidden, Molecules, Request, Sample
from .limits import BODY, refusal
from .metrics import Metrics
from .parsing import check_amount, check_latents, check_texts, mistakes_of, parse, too_large
from .radius import radius_unit
from .schemas import DecodeBody, EmbeddingBody, GenerateBody, HiddenBody, SamplingBody
from .settings import ServeSettings
from .worker import Failed, QueueFull, Ticket, Worker

__all__ = ["ENDPOINTS", "Service"]

_SMALL = 16 * 1024  # bytes of a body that is parsed, or numbers of an answer that is written, in the event loop
T = TypeVar("T")


class Service:
    """Answers requests with a worker.

    Args:
        worker: The worker.
        settings: Limits.
        metrics: Counters.
    """

    def __init__(self, worker: Worker, settings: ServeSettings, metrics: Metrics) -> None:
        self.worker, self._settings, self._metrics = worker, settings, metrics
        self._aside = ThreadPoolExecutor(1, "json")  # one, so that the event loop competes with only one large document

    def close(self) -> None:
        """Frees the threads."""
        self._aside.shutdown(wait=False)

    async def answer(self, http: HttpRequest, read: Callable[[Service, bytes], Request]) -> Response:
        """Computes the answer to a request; `read` is one of `ENDPOINTS`."""
        body = http.scope.pop(BODY)
        if not self.worker.is_warm:
            return refusal(503, "The model is not loaded yet.", Retry_After="2")
        try:
            request = await self._apart(len(body) > _SMALL, functools.partial(read, self, body))
            del body  # it can be large, and the computation can take long
            result = await self._compute(http, request)
        except ValueError as error:
            return JSONResponse({"detail": mistakes_of(error).items}, 422)
        if isinstance(result, Response):
            return result
        is_large = isinstance(request, Molecules) and request.rows > 8
        return Response(await self._apart(is_large, lambda: _written(request, result)), media_type="application/json")

    async def _apart(self, is_large: bool, function: Callable[[], T]) -> T:
        """Runs a function in another thread if it may take long."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, function) if is_large else function()

    async def _compute(self, http: HttpRequest, request: Request) -> Any:
        """The result from the worker, or the answer that there is none."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        def done(result: Any) -> None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(settle, result)

        ticket = Ticket(request, time.monotonic() + self._settings.deadline, done)
        try:
            self.worker.submit(ticket)
        except QueueFull:
            return refusal(503, "Too many requests are waiting.", Retry_After="1")
        leaves = asyncio.ensure_future(_left(http))
        try:
            await asyncio.wait({future, leaves}, timeout=self._settings.deadline, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaves.cancel()
            if not future.done():
                self.worker.withdraw(ticket)
            self._metrics.waiting(self.worker.waiting)
        if not future.done():
            if leaves.done() and not leaves.cancelled():
                self._metrics.left()
                return Response(status_code=499)  # nobody reads it
            return self._expired()
        result = future.result()
        if isinstance(result, Failed):
            return refusal(500, "Internal error. The log of the service has its place.")
        if isinstance(result, ValueError):
            raise result
        if isinstance(result, Dropped):  # at the deadline
            return self._expired()
        return result

    def _expired(self) -> Response:
        return refusal(504, f"The request was not computed within {self._settings.deadline:g} s.")

    def read_embedding(self, body: bytes) -> Embed:
        """The request of a body of `/embedding`."""
        asked = self._parse(EmbeddingBody, body)
        self._check("sequences", asked.sequences)
        return Embed(asked.sequences, asked.kind, None if asked.layers is None else tuple(asked.layers), asked.on_invalid)

    def read_hidden(self, body: bytes) -> Hidden:
        """The request of a body of `/hidden`."""
        asked = self._parse(HiddenBody, body)
        self._check("sequences", asked.sequences)
        return Hidden(asked.sequences)

    def read_decode(self, body: bytes) -> Decode:
        """The request of a body of `/decode`."""
        assert self.worker.model is not None
        network, rows = self.worker.model.config.network, self._settings.max_rows
        shape = network.latents, network.hidden_size
        check_amount(body, rows, rows * (shape[0] * shape[1] + 2 * shape[0]), rows * (shape[0] + 2))
        return Decode(check_latents(parse(DecodeBody, body), rows, shape))

    def read_sampling(self, body: bytes) -> Sample:
        """The request of a body of `/sampling`."""
        asked = self._parse(SamplingBody, body)
        self._check("sequences", asked.sequences)
        evaluations = len(asked.sequences) * asked.num_molecules * asked.beam_size
        self._check_evaluations("sequences", "sequences * num_molecules * beam_size", evaluations)
        may_replace = asked.unique or asked.must_contain
        attempts = min(ATTEMPTS, self._settings.max_evaluations // max(1, evaluations)) if may_replace else 1
        return Sample(**asked.model_dump() | self._radius(asked), attempts=attempts)

    def read_generate(self, body: bytes) -> Generate:
        """The request of a body of `/generate`."""
        asked = self._parse(GenerateBody, body)
        self._check("smi", [asked.smi])
        self._check_evaluations("iterations", "particles * iterations", asked.particles * asked.iterations)
        return Generate(**asked.model_dump() | self._radius(asked))

    def _radius(self, asked: SamplingBody | GenerateBody) -> dict[str, Any]:
        """Radius and unit for the model."""
        assert self.worker.model is not None
        unit, factor = radius_unit(self._settings.radius_unit, asked.unit, self.worker.model.density is not None)
        return {"unit": unit, "scaled_radius": factor * asked.scaled_radius}

    def _check_evaluations(self, field: str, product: str, evaluations: int) -> None:
        if evaluations > self._settings.max_evaluations:
            raise too_large(field, f"{product} must be at most {self._settings.max_evaluations}, found {evaluations}.")

    def _parse(self, schema: Any, body: bytes) -> Any:
        check_amount(body, self._settings.max_rows)
        return parse(schema, body)

    def _check(self, field: str, texts: list[str]) -> None:
        check_texts(field, texts, self._settings.max_rows, self._settings.max_characters)


ENDPOINTS: dict[str, Callable[[Service, bytes], Request]] = {
    "/embedding": Service.read_embedding,
    "/hidden": Service.read_hidden,
    "/decode": Service.read_decode,
    "/sampling": Service.read_sampling,
    "/generate": Service.read_generate,
}


async def _left(http: HttpRequest) -> None:
    """Returns when the client closes its connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _written(request: Request, result: Any) -> bytes:
    """The answer as JSON."""
    if isinstance(request, Embed):
        rows, reasons = result
        texts = [b"null" if i in reasons else to_json(row.tolist()) for i, row in enumerate(rows)]
        invalid = [{"index": i, "reason": reason} for i, reason in reasons.items()]
        more = b',"invalid":' + to_json(invalid) if request.on_invalid == "nan" else b""
        return b'{"embeddings":[' + b",".join(texts) + b"]" + more + b"}"
    if isinstance(request, Hidden):
        texts = [to_json(row.tolist()) for row in result]  # row by row: other threads can run between two
        mask = to_json(np.ones(result.shape[:2], bool).tolist())
        return b'{"hiddens":[' + b",".join(texts) + b'],"mask":' + mask + b"}"
    found, more = result
    if isinstance(request, Generate):
        samples = json.dumps([{"sample": smiles, "score": score} for smiles, score in found])
        scored = [{"smiles": smiles, "score": score} for smiles, score in found]
        note = {"note": more} if more else {}
        return to_json({"molecules": samples, "score_type": request.property_name, "generated": scored, **note})
    return to_json({"generated": found, **({"warnings": more} if more else {})})
