"""The thread that owns the model, and the queue in front of it.

Requests are taken in order. Short ones that wait together and have equal keys are computed together. A long one is computed in steps.
Between two steps, all short ones that wait are computed, so that a long one delays them by at most a step.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..inference import CMIMModel
from .compute import compute_alone, compute_together, is_short, warm_up
from .jobs import Dropped, Request
from .metrics import Metrics

__all__ = ["Failed", "QueueFull", "Ticket", "Worker"]

_log = logging.getLogger("nemo_cmim.serve")


class QueueFull(Exception):
    """The queue has no place for a request."""


class Failed(Exception):
    """A computation failed for a reason that is not the caller's mistake. The log has its type and place."""


class Ticket:
    """A request in the queue.

    Attributes:
        request: What to compute.
        deadline: Time, of `time.monotonic`, after which it is not computed any more.
    """

    def __init__(self, request: Request, deadline: float, done: Callable[[Any], None]) -> None:
        self.request, self.deadline = request, deadline
        self._done, self._dropped = done, threading.Event()

    def drop(self) -> None:
        """Says that nobody waits for the result any more."""
        self._dropped.set()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the result."""
        return not self._dropped.is_set() and time.monotonic() < self.deadline

    def finish(self, result: Any) -> None:
        """Hands over the result, or an error."""
        self._done(result)


class Worker:
    """A thread that loads a model and computes requests with it.

    Args:
        load: Loads the model; called in the thread.
        places: Maximum number of requests that wait.
        max_batch: Maximum number of molecules that are computed together.
        batch_wait: Seconds for which an idle worker waits for more requests.
        metrics: Where sizes of batches are counted.

    Attributes:
        model: The model; None until it is loaded.
        error: Why it could not be loaded, or None.
        example: Latents [1, K, D] of a molecule; None until the model is warm, or if it cannot decode latents.
    """

    def __init__(self, load: Callable[[], CMIMModel], *, places: int, max_batch: int, batch_wait: float, metrics: Metrics) -> None:
        self.model: CMIMModel | None = None
        self.error: Exception | None = None
        self.example: list[Any] | None = None
        self._load, self._places, self._max_batch, self._batch_wait, self._metrics = load, places, max_batch, batch_wait, metrics
        self._short: deque[Ticket] = deque()
        self._long: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._is_warm, self._stops = False, False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Ends the thread after the requests in the queue."""
        with self._changed:
            self._stops = True
            self._changed.notify_all()
        self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_warm(self) -> bool:
        """Whether the model is loaded and has computed something."""
        return self._is_warm and self.is_alive

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._short) + len(self._long)

    def submit(self, ticket: Ticket) -> None:
        """Puts a request into the queue.

        Raises:
            QueueFull: If there is no place.
        """
        with self._changed:
            if self.waiting >= self._places:
                for queue in (self._short, self._long):  # those that nobody waits for give up their places
                    kept = [each for each in queue if each.is_wanted]
                    queue.clear()
                    queue.extend(kept)
            if self._stops or self.waiting >= self._places:
                raise QueueFull
            (self._short if is_short(ticket.request) else self._long).append(ticket)
            self._changed.notify_all()

    def withdraw(self, ticket: Ticket) -> None:
        """Takes a request out of the queue; if it is already being computed, its computation ends at its next step."""
        ticket.drop()
        with self._changed:
            for queue in (self._short, self._long):
                if ticket in queue:
                    queue.remove(ticket)

    def _run(self) -> None:
        try:
            self.model = self._load()
            self.example = warm_up(self.model)
        except Exception as error:  # noqa: BLE001  # reported by whoever started the worker
            self.error = error
            return
        self._is_warm = True
        while self._wait_for_work():
            self._serve_long()
            self._serve_short()

    def _wait_for_work(self) -> bool:
        """Waits for a request; False if the worker is to end."""
        with self._changed:
            was_idle = not self.waiting
            self._changed.wait_for(lambda: self.waiting or self._stops)
            if was_idle and self._batch_wait and not self._stops:
                molecules = self._max_batch
                self._changed.wait_for(
                    lambda: self._stops or self._long or sum(each.request.rows for each in self._short) >= molecules,
                    self._batch_wait,
                )
            return bool(self.waiting)

    def _serve_long(self) -> None:
        """Computes one long request, if one waits."""
        with self._changed:
            ticket = self._long.popleft() if self._long else None
        if ticket is None or not ticket.is_wanted:
            return

        def between() -> None:
            if not ticket.is_wanted:
                raise Dropped
            self._serve_short()

        self._metrics.batch(1, ticket.request.rows)
        ticket.finish(self._alone(ticket, between))

    def _serve_short(self) -> None:
        """Computes the short requests that wait now, in batches."""
        remaining = len(self._short)
        while remaining > 0 and (batch := self._next_batch()):
            remaining -= len(batch)
            wanted = [ticket for ticket in batch if ticket.is_wanted]
            if wanted:
                self._metrics.batch(len(wanted), sum(ticket.request.rows for ticket in wanted))
                for ticket, result in zip(wanted, self._together(wanted)):
                    ticket.finish(result)

    def _next_batch(self) -> list[Ticket]:
        """The first short request, and others that can be computed with it, in order, up to the size of a batch."""
        with self._changed:
            if not self._short:
                return []
            first = self._short.popleft()
            batch, molecules, others = [first], first.request.rows, []
            while self._short and first.request.key is not None and molecules < self._max_batch:
                ticket = self._short.popleft()
                if ticket.request.key == first.request.key and molecules + ticket.request.rows <= self._max_batch:
                    batch.append(ticket)
                    molecules += ticket.request.rows
                else:
                    others.append(ticket)
            self._short.extendleft(reversed(others))
            return batch

    def _together(self, tickets: Sequence[Ticket]) -> list[Any]:
        assert self.model is not None
        try:
            return compute_together(self.model, [ticket.request for ticket in tickets])
        except Exception as error:  # noqa: BLE001  # an error in a computation must not end the thread
            if len(tickets) == 1:
                return [_reported(error)]
            return [self._alone(ticket, lambda: None) for ticket in tickets]  # the error may concern only one of them

    def _alone(self, ticket: Ticket, between: Callable[[], None]) -> Any:
        assert self.model is not None
        try:
            return compute_alone(self.model, ticket.request, between)
        except Exception as error:  # noqa: BLE001  # an error in a computation must not end the thread
            return _reported(error)


def _reported(error: Exception) -> Exception:
    """The error for the client. One that is not the caller's mistake is logged without its message, which may contain SMILES."""
    if isinstance(error, (ValueError, Dropped)) and (isinstance(error, Dropped) or type(error).__module__.startswith("nemo_cmim.")):
        return error
    places = traceback.extract_tb(error.__traceback__)
    where = " <- ".join(f"{place.filename.rpartition('nemo_cmim/')[2]}:{place.lineno}" for place in reversed(places[-4:]))
    _log.error("%s at %s", type(error).__name__, where)
    return Failed()
