"""Checkpoints that survive: kills while writing, damage, full disks; and what is refused."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import lightning.pytorch as pl
import torch

from nemo_cmim.cli import main
from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.training.checkpoints.callback import CheckpointConfig, Checkpointing
from nemo_cmim.training.checkpoints.export import export_checkpoint
from nemo_cmim.training.checkpoints.format import CheckpointManifest, find_checkpoints, newest_valid, remove, verify
from nemo_cmim.training.checkpoints.run_folder import RunFolder, claim_run_folder
from nemo_cmim.training.checkpoints.writer import CheckpointWriter
from nemo_cmim.training.run import train
from tests.training.ranks import start_function
from tests.training.runs import config, overrides, steps

PARAMS = "exp_manager.checkpoint_callback_params"
RESUME = "exp_manager.resume_if_exists=true"


def every_two(max_steps: int) -> list[str]:
    """Overrides for a checkpoint every two steps, and validation at the end alone."""
    return [
        f"trainer.max_steps={max_steps}",
        "trainer.val_check_interval=100",
        f"{PARAMS}.every_n_train_steps=2",
        "model.validation.reconstruct=0",
    ]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 steps, with checkpoints of steps 4 and 6."""
    return train(config(data, tmp_path_factory.mktemp("finished") / "run", *every_two(6)))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may harm."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def go_on(data: Path, folder: Path, *more: str) -> None:
    train(config(data, folder, *every_two(8), RESUME, *more))


def names(folder: Path) -> list[str]:
    return [path.name for path in find_checkpoints(folder / "checkpoints")]


def test_a_checkpoint_says_what_it_is(finished: Path) -> None:
    newest, refused = newest_valid(finished / "checkpoints")
    assert newest is not None and not refused
    manifest = verify(newest)
    assert (manifest.step, manifest.parallel, manifest.order["global batch"]) == (6, {"tensor": 1, "data": 1}, 16)
    assert manifest.model["network"]["hidden_size"] == 32
    assert {"state.pt", "vocabulary.txt", "tensors/.metadata"} < manifest.files.keys()


def test_the_best_and_the_newest_are_kept(data: Path, tmp_path: Path) -> None:
    more = ("trainer.max_steps=12", "trainer.val_check_interval=2", f"{PARAMS}.save_top_k=1", f"{PARAMS}.keep_last=2")
    folder = train(config(data, tmp_path / "run", *more, "model.optim.lr=0.3", "model.stability.divergence_margin=null"))
    kept = {path: CheckpointManifest.read(path) for path in find_checkpoints(folder / "checkpoints")}
    measured = {manifest.step: manifest.monitored for manifest in kept.values()}
    assert {10, 12} <= measured.keys() and len(measured) <= 3
    (again,) = (folder / "checkpoints").glob("*.nemo")
    before = again.read_bytes()
    best = min((loss, step) for step, loss in measured.items() if loss is not None)[1]
    assert main(["export", str(folder / "checkpoints" / f"step={best:08d}.ckpt"), "-o", str(tmp_path / "best.nemo")]) == 0
    assert (tmp_path / "best.nemo").read_bytes() == before


def stall_when_committing(arguments: list[str], at_step: int, flag: Path) -> None:
    """Training whose checkpoint of one step is written, but never made whole."""
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


def test_a_kill_while_writing_leaves_the_last_good_checkpoint(finished: Path, data: Path, tmp_path: Path) -> None:
    folder, flag = tmp_path / "run", tmp_path / "flag"
    ranks = start_function(tmp_path / "logs", 1, stall_when_committing, overrides(data, folder, *every_two(6)), 4, flag)
    ranks.wait_for(flag.exists)
    ranks.send(signal.SIGKILL)
    assert names(folder) == ["step=00000002.ckpt"]
    assert [path.name for path in (folder / "checkpoints").glob(".*.partial")] == [".step=00000004.ckpt.partial"]
    verify(folder / "checkpoints" / "step=00000002.ckpt")
    train(config(data, folder, *every_two(6), RESUME))
    assert names(folder) == ["step=00000006.ckpt", "step=00000004.ckpt"]
    assert not list((folder / "checkpoints").glob(".*.partial"))
    losses = [[row["train_loss"] for row in steps(run)] for run in (folder, finished)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # one thread, and two


def flip_a_byte(folder: Path) -> str:
    shard = next((folder / "tensors").glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return f"the checksum of tensors/{shard.name}"


def cut_off(folder: Path) -> str:
    shard = next((folder / "tensors").glob("*.distcp"))
    os.truncate(shard, 1000)
    return f"{shard.name} has 1000 bytes"


def lose_the_state(folder: Path) -> str:
    (folder / "state.pt").unlink()
    return "state.pt is missing"


def lose_the_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "it has no manifest.json"


def garble_the_manifest(folder: Path) -> str:
    content = bytearray((folder / "manifest.json").read_bytes())
    content[20] |= 0x80
    (folder / "manifest.json").write_bytes(content)
    return "manifest.json cannot be read"


def empty_the_manifest(folder: Path) -> str:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(content | {"files": {}}))
    return "the checksum of manifest.json"


DAMAGES = [flip_a_byte, cut_off, lose_the_state, lose_the_manifest, garble_the_manifest, empty_the_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(data: Path, run: Path, damage: Any) -> None:
    expected = damage(run / "checkpoints" / "step=00000006.ckpt")
    with pytest.warns(UserWarning) as warned:
        go_on(data, run)
    assert any(expected in str(w.message) and "step=00000006.ckpt" in str(w.message) for w in warned)
    assert [row["step"] for row in steps(run)] == list(range(1, 9))
    assert names(run) == ["step=00000008.ckpt", "step=00000006.ckpt"]
    assert len(list((run / "checkpoints").glob("aside.*.step=00000006.ckpt"))) == 1, "nothing is thrown away"


def test_nothing_sound_is_an_error(data: Path, run: Path) -> None:
    for path in find_checkpoints(run / "checkpoints"):
        flip_a_byte(path)
    with pytest.raises(
        CheckpointError, match=r"None of the 2 checkpoints .* is sound. The newest: .*step=00000006.ckpt is damaged"
    ):
        go_on(data, run)
    assert len(names(run)) == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.network.hidden_size=64", "model.network.hidden_size is 32 and not 64"),
        ("model.objective.tau=0.5", "model.objective.tau is 1.0 and not 0.5"),
        ("model.train_ds.batch_size=8", r"global batch is 16 and not 8.*set model.global_batch_size"),
        ("seed=3", "seed is 0 and not 3"),
        ("model.train_ds.limit=100", r"molecules is \d+ and not 100"),
        ("model.train_ds.shuffle_block=8", "shuffle block is None and not 8"),
        ("model.optim.lr=1e-3", "model.optim.lr is 0.003 and not 0.001"),
        ("model.optim.name=adamw", "model.optim.name is adam and not adamw"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(data: Path, run: Path, override: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        go_on(data, run, override)
    assert names(run) == ["step=00000006.ckpt", "step=00000004.ckpt"], "nothing is lost"


def test_a_folder_with_a_run_is_not_written_over(data: Path, run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"already holds a run \(step=00000006.ckpt\). Go on with it by exp_manager.resume_if_exists"
    ):
        train(config(data, run, *every_two(8)))
    with pytest.raises(CheckpointError, match="holds no checkpoint to go on from"):
        train(config(data, run.parent / "new", RESUME, "exp_manager.resume_ignore_no_checkpoint=false", "trainer.max_steps=1"))


def test_a_finished_run_is_found_finished(data: Path, run: Path) -> None:
    before = next((run / "checkpoints").glob("*.nemo")).read_bytes()
    next((run / "checkpoints").glob("*.nemo")).unlink()
    train(config(data, run, *every_two(6), RESUME))
    assert next((run / "checkpoints").glob("*.nemo")).read_bytes() == before
    assert len(steps(run)) == 6


def test_a_folder_of_other_files_is_left_alone(data: Path, tmp_path: Path) -> None:
    """exp_manager moves away all files that it finds."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds files that are not of a run, such as thesis.tex"):
        train(config(data, tmp_path, "trainer.max_steps=1"))
    assert (tmp_path / "thesis.tex").exists()


def test_a_run_may_be_made_longer(data: Path, tmp_path: Path) -> None:
    """The learning rate then follows the longer schedule."""
    schedule = ("model.optim.sched.name=CosineAnnealing", "model.validation.reconstruct=0")
    train(config(data, tmp_path / "longer", *schedule, "trainer.max_steps=4"))
    train(config(data, tmp_path / "longer", *schedule, "trainer.max_steps=8", RESUME))
    train(config(data, tmp_path / "straight", *schedule, "trainer.max_steps=8"))
    longer, straight = ([row["lr"] for row in steps(tmp_path / name)] for name in ("longer", "straight"))
    assert longer[5:] == straight[5:] and longer[2] != straight[2]


def test_a_validation_loss_that_is_not_finite_is_not_ranked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pl.Trainer.callback_metrics

    def spoilt(trainer: pl.Trainer) -> Any:
        found = metrics.fget(trainer)  # type: ignore[attr-defined]
        return {**found, "val_loss": torch.tensor(float("nan"))} if trainer.global_step == 2 else found

    monkeypatch.setattr(pl.Trainer, "callback_metrics", property(spoilt))
    more = ("trainer.max_steps=6", "trainer.val_check_interval=2", f"{PARAMS}.save_top_k=1", f"{PARAMS}.keep_last=1")
    with pytest.warns(UserWarning, match="val_loss is nan at step 2: not ranked"):
        folder = train(config(data, tmp_path / "run", *more))
    assert "step=00000002.ckpt" not in names(folder)


def test_a_damaged_best_checkpoint_is_not_exported(run: Path) -> None:
    best, newest = (run / "checkpoints" / name for name in ("step=00000004.ckpt", "step=00000006.ckpt"))
    flip_a_byte(best)
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    nemo_file.unlink()
    trainer: Any = SimpleNamespace(is_global_zero=True, strategy=SimpleNamespace(broadcast=lambda message: message))
    checkpointing = Checkpointing(
        CheckpointConfig(), CheckpointWriter(), RunFolder(run, newest, {best: 1.0, newest: 2.0}), nemo_file.stem
    )
    with pytest.warns(UserWarning, match=r"could not be made of step=00000004.ckpt: .* is damaged.*The next best is tried"):
        checkpointing.finish(trainer)
    export_checkpoint(newest, run / "expected.nemo")
    assert nemo_file.read_bytes() == (run / "expected.nemo").read_bytes()
    flip_a_byte(newest)
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match=r"could not be made of step=00000006\.ckpt"):
        checkpointing.finish(trainer)


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"step=00000001.ckpt is no longer needed and could not be removed: No such file"):
        remove(tmp_path / "step=00000001.ckpt")


def test_a_requeued_run_goes_on_from_its_own_checkpoint(run: Path, tmp_path: Path) -> None:
    """The command that named another one to begin with stays the same."""
    other = run / "checkpoints" / "step=00000004.ckpt"
    settings = {"resume_if_exists": True, "resume_from_checkpoint": str(other)}
    with claim_run_folder(settings | {"explicit_log_dir": str(tmp_path / "new")}) as claimed:
        assert claimed.resume_from == other
    with claim_run_folder(settings | {"explicit_log_dir": str(run)}) as claimed:
        assert claimed.resume_from == run / "checkpoints" / "step=00000006.ckpt"


def test_two_runs_in_one_folder_are_refused(data: Path, run: Path) -> None:
    with (
        claim_run_folder({"explicit_log_dir": str(run), "resume_if_exists": True}),
        pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()} on "),
    ):
        go_on(data, run)
    go_on(data, run)  # the lock went with its holder


def test_a_folder_that_cannot_be_written_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="The run folder /proc/nowhere cannot be written"):
        train(config(data, Path("/proc/nowhere"), "trainer.max_steps=1"))


def test_a_run_without_validation_saves_too(data: Path, tmp_path: Path) -> None:
    more = ("trainer.limit_val_batches=0", "trainer.val_check_interval=2", f"{PARAMS}.every_n_train_steps=2", "trainer.max_steps=5")
    folder = train(config(data, tmp_path / "run", *more))
    assert names(folder) == ["step=00000005.ckpt", "step=00000004.ckpt"]
    assert list((folder / "checkpoints").glob("*.nemo"))


@contextmanager
def before_each_checkpoint(happens: Callable[[], object]) -> Generator[None, None, None]:
    save = CheckpointWriter.save

    def prepared(self: CheckpointWriter, *arguments: Any) -> None:
        happens()
        save(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", prepared)
        yield


def test_a_write_that_the_system_refuses_stops_the_run_and_loses_nothing(data: Path, run: Path) -> None:
    """The system limits the size of files, so this needs no privilege."""
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        message = r"step=00000008.ckpt could not be written: .*a limit on the size of files.*The last one is .*0006"
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # noqa: E731
        with before_each_checkpoint(limit), pytest.raises(CheckpointError, match=message):
            go_on(data, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal_before)
    assert names(run) == ["step=00000006.ckpt", "step=00000004.ckpt"]
    assert not list((run / "checkpoints").glob(".*.partial")), "what was half written is cleared away"
    go_on(data, run)
    assert names(run)[0] == "step=00000008.ckpt"


def test_a_full_disk_stops_the_run_and_loses_nothing(finished: Path, data: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")

    def fill() -> None:
        with (disk / "filler").open("wb") as file:
            file.write(bytes(shutil.disk_usage(disk).free - 100_000))

    try:
        run = Path(shutil.copytree(finished, disk / "run"))
        message = r"step=00000008.ckpt could not be written: .*0.1 MB are free.*The last one is"
        with before_each_checkpoint(fill), pytest.raises(CheckpointError, match=message):
            go_on(data, run)
        assert newest_valid(run / "checkpoints")[0] == run / "checkpoints" / "step=00000006.ckpt"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_exporting_what_is_no_checkpoint_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "model.nemo")]) == 2
    assert "is no checkpoint of this project" in capsys.readouterr().err
    flip_a_byte(run / "checkpoints" / "step=00000004.ckpt")
    assert main(["export", str(run / "checkpoints" / "step=00000004.ckpt"), "-o", str(tmp_path / "model.nemo")]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert json.loads((run / "checkpoints" / "step=00000006.ckpt" / "manifest.json").read_text())["step"] == 6
