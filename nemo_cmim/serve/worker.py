"""The thread that owns the model, and the queue in front of it.

Requests are taken in order. Short ones that wait together and have equal keys are computed together. Long ones are computed in steps and
take turns. Between two steps, the short ones that wait are computed. Short, long and very long requests have places of their own, so that
none of them keeps out the others.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..inference import CMIMModel
from .compute import compute_alone, compute_together, is_short, warm_up
from .jobs import Dropped, Request
from .metrics import Metrics
from .turns import Pause, Steps

__all__ = ["Failed", "QueueFull", "Ticket", "Worker"]

_log = logging.getLogger("nemo_cmim.serve")
_TURNS = 3  # long requests that take turns, and as many very long ones; each holds up to 0.3 GB of caches in memory
_VERY_LONG = 3000  # molecules that are decoded for a request; MolMIM's default is 300


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


class _Turn(NamedTuple):
    """A long request that is being computed."""

    ticket: Ticket
    queue: deque[Ticket]  # from which it came
    steps: Steps


class Worker:
    """A thread that loads a model and computes requests with it.

    Args:
        load: Loads the model; called in the thread.
        places: Maximum number of short requests that wait, of long ones, and of very long ones.
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
        self._very_long: deque[Ticket] = deque()
        self._queues = (self._short, self._long, self._very_long)
        self._turns: deque[_Turn] = deque()
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
        return sum(map(len, self._queues))

    def submit(self, ticket: Ticket) -> None:
        """Puts a request into the queue.

        Raises:
            QueueFull: If there is no place.
        """
        is_long, is_very_long = not is_short(ticket.request), ticket.request.rows > _VERY_LONG
        queue = self._queues[is_long + (is_long and is_very_long)]
        with self._changed:
            if len(queue) >= self._places:  # those that nobody waits for give up their places
                kept = [each for each in queue if each.is_wanted]
                queue.clear()
                queue.extend(kept)
            if self._stops or len(queue) >= self._places:
                raise QueueFull
            queue.append(ticket)
            self._changed.notify_all()

    def withdraw(self, ticket: Ticket) -> None:
        """Takes a request out of the queue; if it is already being computed, its computation ends at its next step."""
        ticket.drop()
        with self._changed:
            for queue in self._queues:
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
            start = time.monotonic()
            self._serve_short()
            self._serve_long(time.monotonic() - start)

    def _wait_for_work(self) -> bool:
        """Waits for a request; False if the worker is to end."""
        with self._changed:
            was_idle = not self.waiting and not self._turns
            self._changed.wait_for(lambda: self.waiting or self._turns or self._stops)
            if was_idle and self._batch_wait and not self._stops:
                molecules = self._max_batch
                self._changed.wait_for(
                    lambda: (
                        self._stops
                        or self.waiting > len(self._short)
                        or sum(each.request.rows for each in self._short) >= molecules
                    ),
                    self._batch_wait,
                )
            return bool(self.waiting or self._turns)

    def _serve_long(self, seconds: float) -> None:
        """Computes one step of each of the long requests in turn, for as long as short ones took, and at least one step."""
        for queue in self._queues[1:]:
            while queue and sum(turn.queue is queue for turn in self._turns) < _TURNS:
                with self._changed:
                    ticket = queue.popleft() if queue else None
                if ticket is not None and ticket.is_wanted:
                    self._metrics.batch(1, ticket.request.rows)
                    self._turns.append(_Turn(ticket, queue, Steps(functools.partial(self._in_steps, ticket))))
        start = time.monotonic()
        while self._turns:
            turn = self._turns.popleft()
            if turn.steps.next():
                turn.ticket.finish(turn.steps.result)
            else:
                self._turns.append(turn)
            if time.monotonic() - start >= seconds:
                break

    def _in_steps(self, ticket: Ticket, pause: Pause) -> Any:
        def pause_or_end() -> None:
            pause()
            if not ticket.is_wanted:
                raise Dropped

        return self._alone(ticket, pause_or_end)

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

    def _alone(self, ticket: Ticket, pause: Pause) -> Any:
        assert self.model is not None
        try:
            return compute_alone(self.model, ticket.request, pause)
        except Dropped as error:
            return error
        except Exception as error:  # noqa: BLE001  # an error in a computation must not end the thread
            return _reported(error)


def _reported(error: Exception) -> Exception:
    """The error for the client. One that is not the caller's mistake is logged without its message, which may contain SMILES."""
    if isinstance(error, ValueError) and type(error).__module__.startswith("nemo_cmim."):
        return error
    places = traceback.extract_tb(error.__traceback__)
    where = " <- ".join(f"{place.filename.rpartition('nemo_cmim/')[2]}:{place.lineno}" for place in reversed(places[-4:]))
    _log.error("%s at %s", type(error).__name__, where)
    return Failed()
