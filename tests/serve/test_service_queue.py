"""The queue: batches, isolation of errors, order, deadlines, clients that leave. Events decide the order, not time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from nemo_cmim.errors import InvalidLatentError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.serve import worker as worker_module
from nemo_cmim.serve.jobs import BadMolecules, Decode, Dropped, Embed, Generate, Request, Sample
from nemo_cmim.serve.metrics import Metrics
from nemo_cmim.serve.worker import Failed, QueueFull, Ticket, Worker
from tests.serve.running import client_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PATIENCE_S = 120


@contextmanager
def worker_of(model: CMIMModel, places: int = 100, max_batch: int = 64) -> Iterator[Worker]:
    worker = Worker(lambda: model, places=places, max_batch=max_batch, batch_wait=0, metrics=Metrics())
    worker.start()
    while not worker.is_warm:
        assert worker.is_alive
        time.sleep(0.01)
    try:
        yield worker
    finally:
        worker.stop(PATIENCE_S)


def put(
    worker: Worker, request: Request, seconds: float = PATIENCE_S, order: list[Request] | None = None
) -> tuple[Ticket, Future[Any]]:
    future: Future[Any] = Future()

    def done(result: Any) -> None:
        if order is not None:
            order.append(request)
        future.set_result(result)

    ticket = Ticket(request, time.monotonic() + seconds, done)
    worker.submit(ticket)
    return ticket, future


class Pause:
    """Stops the worker at its first computation until `go` is set; records what is computed together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.batches: list[list[Request]] = []
        together = worker_module.compute_together

        def paused(model: CMIMModel, requests: list[Request]) -> list[Any]:
            self.batches.append(requests)
            self.reached.set()
            assert self.go.wait(PATIENCE_S)
            return together(model, requests)

        monkeypatch.setattr(worker_module, "compute_together", paused)


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pause]:
    pause = Pause(monkeypatch)
    yield pause
    pause.go.set()


def test_requests_that_wait_together_are_computed_together(model: CMIMModel, pause: Pause) -> None:
    with worker_of(model, max_batch=8) as worker:
        first = put(worker, Embed(["C"]))[1]
        assert pause.reached.wait(PATIENCE_S)
        means = [Embed(["CCO", "C1CC" if i == 2 else "N" * (i + 1)]) for i in range(6)]
        informative = Embed(["CO"], "informative")
        futures = [put(worker, each)[1] for each in [*means[:1], informative, *means[1:]]]
        pause.go.set()
        results = [each.result(PATIENCE_S) for each in futures]
        assert first.result(PATIENCE_S)[0].shape == (1, 32)
    assert pause.batches[1:] == [means[:4], [informative], means[4:]]  # 8 molecules at most, in order
    assert isinstance(results[3], BadMolecules) and list(results[3].reasons) == [1]
    for i, result in zip([0, 1, 3, 4, 5], [results[0], results[2], *results[4:]]):
        np.testing.assert_allclose(result[0], model.embed(means[i].sequences, "mean"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[1][0], model.embed(["CO"]), rtol=1e-5, atol=1e-6)


def test_latents_of_one_request_do_not_spoil_others(model: CMIMModel, pause: Pause) -> None:
    latents = model.encode(["CCO", "CCN", "CCC"]).mean_BKD.numpy()
    with worker_of(model) as worker:
        put(worker, Embed(["C"]))
        assert pause.reached.wait(PATIENCE_S)
        wrong = np.full((1, 1, 32), np.nan, np.float32)
        futures = [put(worker, Decode(each))[1] for each in (latents[:2], wrong, latents[2:])]
        pause.go.set()
        (first, _), bad, (last, _) = (each.result(PATIENCE_S) for each in futures)
    assert len(pause.batches[1]) == 3 and isinstance(bad, InvalidLatentError) and "row 0" in str(bad)
    assert [*first, *last] == model.decode(latents)


def test_an_error_that_concerns_one_request_is_only_its_own(
    model: CMIMModel, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: CMIMModel, requests: list[Request]) -> list[Any]:
        raise RuntimeError("a secret SMILES")

    with worker_of(model) as worker:
        put(worker, Embed(["C"]))
        assert pause.reached.wait(PATIENCE_S)
        monkeypatch.setattr(worker_module, "compute_together", broken)
        futures = [put(worker, each)[1] for each in (Embed(["CCO"]), Embed(["C1CC"]))]
        pause.go.set()
        good, bad = (each.result(PATIENCE_S) for each in futures)
    assert good[0].shape == (1, 32) and isinstance(bad, BadMolecules)


def test_the_thread_survives_an_unexpected_error(
    model: CMIMModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(model: CMIMModel, requests: list[Request]) -> list[Any]:
        raise RuntimeError("a secret SMILES")

    with worker_of(model) as worker:
        with monkeypatch.context() as context:
            context.setattr(worker_module, "compute_together", broken)
            assert isinstance(put(worker, Embed(["CCO"]))[1].result(PATIENCE_S), Failed)
        assert put(worker, Embed(["CCO"]))[1].result(PATIENCE_S)[0].shape == (1, 32)
    assert "RuntimeError at" in caplog.text and "secret" not in caplog.text


def test_the_queue_is_bounded_and_places_are_freed(model: CMIMModel, pause: Pause) -> None:
    with worker_of(model, places=2) as worker:
        running = put(worker, Embed(["C"]))[1]
        assert pause.reached.wait(PATIENCE_S)
        ticket, left = put(worker, Embed(["CC"]))
        put(worker, Embed(["CCC"]), seconds=-1)  # expired: it gives up its place when another one needs it
        kept = put(worker, Embed(["CCCC"]))[1]
        with pytest.raises(QueueFull):
            put(worker, Embed(["CCCCC"]))
        worker.withdraw(ticket)
        last = put(worker, Embed(["CCCCCC"]))[1]
        pause.go.set()
        assert all(each.result(PATIENCE_S)[0].shape == (1, 32) for each in (running, kept, last))
    assert not left.done()
    assert [each.sequences for batch in pause.batches for each in batch if isinstance(each, Embed)] == [["C"], ["CCCC"], ["CCCCCC"]]


def test_an_expired_request_is_not_computed(model: CMIMModel, pause: Pause) -> None:
    with worker_of(model) as worker:
        put(worker, Embed(["C"]))
        assert pause.reached.wait(PATIENCE_S)
        expired = [put(worker, each, seconds=-1)[1] for each in (Embed(["CC"]), search())]
        last = put(worker, Embed(["CCC"]))[1]
        pause.go.set()
        last.result(PATIENCE_S)
    assert not any(each.done() for each in expired)
    assert [each.sequences for batch in pause.batches for each in batch if isinstance(each, Embed)] == [["C"], ["CCC"]]


def search(iterations: int = 4) -> Generate:
    return Generate("CCO", "none", 5, "QED", False, 0.0, 4, iterations, 1.0, "absolute", 0)


@contextmanager
def stepping(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Calls `act` at a step of `optimize`; yields a list to which each step is added."""
    steps: list[int] = []
    original = CMIMModel.optimize

    def optimize(self: CMIMModel, *args: Any, progress: Callable[[int, int], None] = lambda done, of: None, **options: Any) -> Any:
        def show(done: int, of: int) -> None:
            steps.append(done)
            if len(steps) == at:
                act()
            progress(done, of)

        return original(self, *args, progress=show, **options)

    monkeypatch.setattr(CMIMModel, "optimize", optimize)
    yield steps


def test_short_requests_pass_between_the_steps_of_a_long_one(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Request] = []
    with worker_of(model) as worker:
        short, futures = [Embed(["CCO"]), Sample(["CCO"], 1, 1, 0.5, "absolute", 0)], []

        def arrive() -> None:
            futures.extend(put(worker, each, order=order)[1] for each in short)

        with stepping(monkeypatch, 2, arrive) as steps:
            long = search()
            result = put(worker, long, order=order)[1].result(PATIENCE_S)
    assert steps == [4, 8, 12, 16] and order == [*short, long]
    (expected,) = model.optimize(
        ["CCO"], "QED", algorithm="none", evaluations=16, population=4, scaled_radius=1, unit="absolute", n=5, seed=0
    )
    assert result[0] == [(one.smiles, one.score) for one in expected.molecules]


def test_short_requests_pass_between_the_tokens_of_a_long_one(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Request] = []
    original, futures = CMIMNetwork.step, []
    with worker_of(model) as worker:

        def step(*arguments: Any) -> Any:
            if not futures:
                futures.append(put(worker, Embed(["CCO"]), order=order)[1])
            return original(*arguments)

        monkeypatch.setattr(CMIMNetwork, "step", step)
        long = search(1)
        put(worker, long, order=order)[1].result(PATIENCE_S)
    assert order[0] is not long and len(order) == 2


def test_searches_take_turns(model: CMIMModel) -> None:
    with worker_of(model) as worker:
        giants = [put(worker, search(1000)) for _ in range(5)]  # 4,000 evaluations each: more of them than take turns
        small = put(worker, search(2))[1].result(PATIENCE_S)
        assert small[0] and not any(future.done() for _, future in giants)
        for ticket, _ in giants:
            worker.withdraw(ticket)
        assert isinstance(giants[0][1].result(PATIENCE_S), Dropped)


def test_long_requests_do_not_take_the_places_of_others(model: CMIMModel, pause: Pause) -> None:
    with worker_of(model, places=2) as worker:
        put(worker, Embed(["C"]))
        assert pause.reached.wait(PATIENCE_S)
        giants = [put(worker, search(1000))[0] for _ in range(2)]
        with pytest.raises(QueueFull):
            put(worker, search(1000))
        futures = [put(worker, each)[1] for each in (search(1), Embed(["CC"]), search(1), Embed(["CCC"]))]
        for each in (search(1), Embed(["CCCC"])):
            with pytest.raises(QueueFull):
                put(worker, each)
        pause.go.set()
        assert all(each.result(PATIENCE_S) for each in futures)
        for ticket in giants:
            worker.withdraw(ticket)


def test_a_search_ends_at_its_next_step_when_its_client_leaves(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets: list[Ticket] = []
    arrived = threading.Event()

    def leave() -> None:
        assert arrived.wait(PATIENCE_S)
        worker.withdraw(tickets[0])

    with worker_of(model) as worker, stepping(monkeypatch, 2, leave) as steps:
        ticket, future = put(worker, search(1000))
        tickets.append(ticket)
        arrived.set()
        assert isinstance(future.result(PATIENCE_S), Dropped)
        assert put(worker, Embed(["CCO"]))[1].result(PATIENCE_S)[0].shape == (1, 32)
    assert steps == [4, 8]


def test_no_kind_of_request_waits_for_ever(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While short requests keep arriving, a long one still starts; while long ones keep arriving, a short one is computed."""
    order: list[Request] = []
    with worker_of(model) as worker, stepping(monkeypatch, 1, lambda: None):
        requests = [Embed([f"{'C' * (i + 1)}"]) if i % 2 else search(1) for i in range(10)]
        futures = [put(worker, each, order=order)[1] for each in requests]
        for each in futures:
            each.result(PATIENCE_S)
    assert len(order) == 10


def test_answers_of_concurrent_clients_are_their_own(model: CMIMModel) -> None:
    molecules = [f"{'C' * (i % 7 + 1)}{'N' * (i % 5)}{'O' * (i % 3)}" for i in range(120)]
    expected = {smiles: model.embed([smiles], "mean")[0] for smiles in molecules}
    with client_of(model) as client, ThreadPoolExecutor(8) as pool:

        def ask(i: int) -> None:
            asked = [molecules[i], molecules[(i * 7) % 120]]
            found = client.post("/embedding", json={"sequences": asked}).json()["embeddings"]
            np.testing.assert_allclose(found, [expected[each] for each in asked], rtol=1e-4, atol=1e-5)

        assert len(list(pool.map(ask, range(120)))) == 120
