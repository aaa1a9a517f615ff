"""State of the process after a run: signal handlers and loader workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.signals import PREEMPTION_SIGNALS
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.preemption import Preempted
from nemo_cmim.training.run import train
from nemo_cmim.types import MicroBatch
from tests.interrupts import heed_interrupts
from tests.training.runs import config, overrides, steps


def handler(number: int, frame: object) -> None:
    raise AssertionError("not called")


@pytest.fixture
def own_handlers() -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in PREEMPTION_SIGNALS}
    yield
    for number, previous in before.items():
        signal.signal(number, previous)


def workers_end() -> bool:
    """Waits for workers that were terminated; on a busy machine, they may need some time to end."""
    stop = time.monotonic() + 600.0
    while multiprocessing.active_children() and time.monotonic() < stop:
        time.sleep(0.05)
    return not multiprocessing.active_children()


@pytest.mark.parametrize("end", [None, RuntimeError, Preempted])
@pytest.mark.usefixtures("own_handlers")
def test_a_run_restores_signal_handlers_and_ends_its_workers(
    end: type[BaseException] | None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while its exception, which keeps the variables of its functions alive, is in use."""
    step = MegatronCMIMModel.training_step

    def stopped(self: MegatronCMIMModel, batch: MicroBatch, batch_idx: int) -> torch.Tensor:
        assert all(signal.getsignal(number) is not handler for number in PREEMPTION_SIGNALS)
        assert multiprocessing.active_children()
        if end is RuntimeError:
            raise RuntimeError("a fault")
        if end is Preempted:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(MegatronCMIMModel, "training_step", stopped)
    settings = config(data, tmp_path / "run", "trainer.max_steps=2", "model.train_ds.workers=1", "trainer.limit_val_batches=0")
    if end is None:
        train(settings)
    else:
        with pytest.raises(end) as raised:
            train(settings)
        assert raised.traceback
    assert [signal.getsignal(number) for number in PREEMPTION_SIGNALS] == [handler, handler]
    assert workers_end()


def test_an_interrupt_ends_the_command_with_its_status(data: Path, tmp_path: Path) -> None:
    """Lightning alone would exit with status 1."""
    log, run = tmp_path / "log", tmp_path / "run"
    more = ["trainer.max_steps=1000000", "trainer.val_check_interval=1000000", "model.train_ds.workers=1"]
    command = [sys.executable, "-m", "nemo_cmim.cli", "train", *overrides(data, run, *more)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
    try:
        until = time.monotonic() + 600.0
        while len(steps(run)) < 3:  # while a worker is forked, Python ignores an exception
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(600.0) == 130, log.read_text()
        assert "Traceback" not in log.read_text() and "nemo-cmim train: interrupted." in log.read_text()
    finally:
        process.kill()
        process.wait()
