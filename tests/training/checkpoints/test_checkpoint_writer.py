"""Writing and loading checkpoints: killed processes, full disks, and checkpoints of runs with different settings."""

from __future__ import annotations

import dataclasses
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.config import ModelConfig
from nemo_cmim.errors import CheckpointError
from nemo_cmim.mappings import from_mapping
from nemo_cmim.tokenizers import Vocabulary
from nemo_cmim.training.checkpoints import writer as checkpoint_writer
from nemo_cmim.training.checkpoints.format import CheckpointManifest, newest_valid, verify
from nemo_cmim.training.checkpoints.writer import CheckpointWriter
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.optimisation import use_fused_kernel
from nemo_cmim.training.run import train
from tests.training.ranks import start_function
from tests.training.runs import RESUME, checkpoint_names, config, every_two, overrides, steps


def stall_when_committing(arguments: list[str], at_step: int, flag: Path) -> None:
    """Trains, and writes the checkpoint of one step without completing it."""
    from nemo_cmim.training.checkpoints import writer as checkpoint_writer
    from nemo_cmim.training.run import compose, train

    commit = checkpoint_writer.commit

    def stalled(folder: Path, manifest: CheckpointManifest) -> None:
        if manifest.step == at_step:
            flag.touch()
            time.sleep(600)
        commit(folder, manifest)

    checkpoint_writer.commit = stalled
    train(compose(arguments))


def test_a_kill_while_writing_leaves_the_checkpoint_before(finished: Path, data: Path, tmp_path: Path) -> None:
    folder, flag = tmp_path / "run", tmp_path / "flag"
    ranks = start_function(tmp_path / "logs", 1, stall_when_committing, overrides(data, folder, *every_two(6)), 4, flag)
    ranks.wait_for(flag.exists)
    ranks.send(signal.SIGKILL)
    assert checkpoint_names(folder) == ["step=00000002.ckpt"]
    assert [path.name for path in (folder / "checkpoints").glob(".*.partial")] == [".step=00000004.ckpt.partial"]
    verify(folder / "checkpoints" / "step=00000002.ckpt")
    train(config(data, folder, *every_two(6), RESUME))
    assert checkpoint_names(folder) == ["step=00000006.ckpt", "step=00000004.ckpt"]
    assert not list((folder / "checkpoints").glob(".*.partial"))
    losses = [[row["train_loss"] for row in steps(run)] for run in (folder, finished)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # the first process has one thread, this one two


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("network", "hidden_size", 64, "model.network.hidden_size is 32 instead of 64"),
        ("objective", "tau", 0.5, "model.objective.tau is 1.0 instead of 0.5"),
        ("optim", "lr", 1e-3, "model.optim.lr is 0.003 instead of 0.001"),
        ("optim", "name", "adamw", "model.optim.name is adam instead of adamw"),
        ("order", "global batch", 8, r"global batch is 16 instead of 8.*Set model.global_batch_size"),
        ("order", "seed", 3, "seed is 0 instead of 3"),
        ("order", "molecules", 100, r"molecules is \d+ instead of 100"),
        ("order", "shuffle block", 8, "shuffle block is None instead of 8"),
    ],
)
def test_a_checkpoint_with_different_settings_is_not_loaded(
    finished: Path, section: str, key: str, value: Any, message: str
) -> None:
    folder = finished / "checkpoints" / "step=00000006.ckpt"
    manifest = CheckpointManifest.read(folder)
    settings, order = from_mapping(ModelConfig, manifest.model, "model"), dict(manifest.order)
    if section == "order":
        order[key] = value
    else:
        changed = dataclasses.replace(getattr(settings, section), **{key: value})
        settings = dataclasses.replace(settings, **{section: changed})
    state: Any = SimpleNamespace(config=settings, order=order, vocabulary=Vocabulary.load(folder / "vocabulary.txt"))
    with pytest.raises(CheckpointError, match=message):
        CheckpointWriter().load(state, folder)


def test_a_run_with_a_different_batch_does_not_resume(data: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to a run with different settings: global batch is 16 instead of 8"):
        train(config(data, run, *every_two(8), RESUME, "model.train_ds.batch_size=8"))
    assert checkpoint_names(run) == ["step=00000006.ckpt", "step=00000004.ckpt"], "nothing is deleted"


def test_a_resumed_run_may_have_more_steps(data: Path, tmp_path: Path) -> None:
    """The learning rate then follows the longer schedule."""
    schedule = ("model.optim.sched.name=CosineAnnealing", "model.validation.reconstruct=0")
    train(config(data, tmp_path / "longer", *schedule, "trainer.max_steps=4"))
    train(config(data, tmp_path / "longer", *schedule, "trainer.max_steps=8", RESUME))
    train(config(data, tmp_path / "straight", *schedule, "trainer.max_steps=8"))
    longer, straight = ([row["lr"] for row in steps(tmp_path / name)] for name in ("longer", "straight"))
    assert longer[5:] == straight[5:] and longer[2] != straight[2]


@contextmanager
def before_each_checkpoint(happens: Callable[[], object]) -> Generator[None, None, None]:
    save = CheckpointWriter.save

    def prepared(self: CheckpointWriter, *arguments: Any) -> None:
        happens()
        save(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", prepared)
        yield


def test_a_failed_write_stops_the_run_and_keeps_earlier_checkpoints(data: Path, run: Path) -> None:
    """A limit on the size of files makes the write fail; setting it needs no privilege."""
    resume = config(data, run, *every_two(8), RESUME)
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        message = r"step=00000008.ckpt could not be written: .*a limit on the size of files.*resume from .*0006"
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # noqa: E731
        with before_each_checkpoint(limit), pytest.raises(CheckpointError, match=message):
            train(resume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal_before)
    assert checkpoint_names(run) == ["step=00000006.ckpt", "step=00000004.ckpt"]
    assert not list((run / "checkpoints").glob(".*.partial")), "the incomplete checkpoint is removed"
    train(resume)
    assert checkpoint_names(run)[0] == "step=00000008.ckpt"


def test_a_full_disk_stops_the_run_and_keeps_earlier_checkpoints(finished: Path, data: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")

    def fill() -> None:
        with (disk / "filler").open("wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free - 100_000))

    try:
        run = Path(shutil.copytree(finished, disk / "run"))
        message = r"step=00000008.ckpt could not be written: .*0.1 MB are free.*Fix the cause and resume from"
        with before_each_checkpoint(fill), pytest.raises(CheckpointError, match=message):
            train(config(data, run, *every_two(8), RESUME))
        assert newest_valid(run / "checkpoints")[0] == run / "checkpoints" / "step=00000006.ckpt"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_the_thread_uses_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen: list[tuple[str, int]] = []
    monkeypatch.setattr(checkpoint_writer, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: chosen.append((threading.current_thread().name, gpu)))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    (tmp_path / "step=00000002.ckpt").mkdir()
    writer = CheckpointWriter()
    writer.remove(tmp_path / "step=00000002.ckpt")
    writer.wait()
    assert not list(tmp_path.iterdir())
    assert chosen == [("checkpoint_0", 3)]


def test_a_run_with_the_fused_kernel_resumes(finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, Adam has one kernel for all weights, and keeps its counters there. torch has such a kernel for CPUs too."""
    original = MegatronCMIMModel.setup_optimization

    def fused(self: MegatronCMIMModel, *arguments: Any, **options: Any) -> Any:
        made = original(self, *arguments, **options)
        use_fused_kernel(self._optimizer)
        assert self._optimizer.param_groups[0]["fused"]
        return made

    monkeypatch.setattr(MegatronCMIMModel, "setup_optimization", fused)
    folder = tmp_path / "run"
    train(config(data, folder, *every_two(6)))
    complete = [row["train_loss"] for row in steps(folder)]
    assert complete == pytest.approx([row["train_loss"] for row in steps(finished)], rel=1e-4)
    shutil.rmtree(folder / "checkpoints" / "step=00000006.ckpt")
    train(config(data, folder, *every_two(6), RESUME))
    assert [row["train_loss"] for row in steps(folder)] == complete
