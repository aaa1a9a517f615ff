"""When checkpoints are written, which are kept, and which is exported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import lightning.pytorch as pl
import torch

from nemo_cmim.cli import main
from nemo_cmim.errors import CheckpointError
from nemo_cmim.training.checkpoints.callback import CheckpointConfig, Checkpointing
from nemo_cmim.training.checkpoints.export import export_checkpoint
from nemo_cmim.training.checkpoints.format import CheckpointManifest, find_checkpoints
from nemo_cmim.training.checkpoints.run_folder import RunFolder
from nemo_cmim.training.checkpoints.writer import CheckpointWriter
from nemo_cmim.training.run import train
from tests.training.checkpoints.damage import flip_a_byte
from tests.training.runs import PARAMS, RESUME, checkpoint_names, config, every_two, steps


def test_the_best_and_the_newest_are_kept(data: Path, tmp_path: Path) -> None:
    more = (
        "trainer.max_steps=12",
        "trainer.val_check_interval=2",
        f"{PARAMS}.save_top_k=1",
        f"{PARAMS}.keep_last=2",
        "model.validation.reconstruct=0",
    )
    folder = train(config(data, tmp_path / "run", *more, "model.optim.lr=0.3", "model.stability.divergence_margin=null"))
    kept = {path: CheckpointManifest.read(path) for path in find_checkpoints(folder / "checkpoints")}
    measured = {manifest.step: manifest.monitored for manifest in kept.values()}
    assert {10, 12} <= measured.keys() and len(measured) <= 3
    (again,) = (folder / "checkpoints").glob("*.nemo")
    before = again.read_bytes()
    best = min((loss, step) for step, loss in measured.items() if loss is not None)[1]
    assert main(["export", str(folder / "checkpoints" / f"step={best:08d}.ckpt"), "-o", str(tmp_path / "best.nemo")]) == 0
    assert (tmp_path / "best.nemo").read_bytes() == before


def test_the_command_of_a_finished_run_exports_again_and_does_not_train(data: Path, run: Path) -> None:
    before = next((run / "checkpoints").glob("*.nemo")).read_bytes()
    next((run / "checkpoints").glob("*.nemo")).unlink()
    train(config(data, run, *every_two(6), RESUME))
    assert next((run / "checkpoints").glob("*.nemo")).read_bytes() == before
    assert len(steps(run)) == 6


def test_a_validation_loss_that_is_not_finite_is_not_ranked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pl.Trainer.callback_metrics

    def with_nan(trainer: pl.Trainer) -> Any:
        found = metrics.fget(trainer)  # type: ignore[attr-defined]
        return {**found, "val_loss": torch.tensor(float("nan"))} if trainer.global_step == 2 else found

    monkeypatch.setattr(pl.Trainer, "callback_metrics", property(with_nan))
    more = ("trainer.max_steps=6", "trainer.val_check_interval=2", f"{PARAMS}.save_top_k=1", f"{PARAMS}.keep_last=1")
    with pytest.warns(UserWarning, match="val_loss is nan at step 2: the checkpoint is not ranked"):
        folder = train(config(data, tmp_path / "run", *more))
    assert "step=00000002.ckpt" not in checkpoint_names(folder)


def test_a_damaged_best_checkpoint_is_not_exported(run: Path) -> None:
    best, newest = (run / "checkpoints" / name for name in ("step=00000004.ckpt", "step=00000006.ckpt"))
    flip_a_byte(best)
    (nemo_file,) = (run / "checkpoints").glob("*.nemo")
    nemo_file.unlink()
    trainer: Any = SimpleNamespace(is_global_zero=True, strategy=SimpleNamespace(broadcast=lambda message: message))
    checkpointing = Checkpointing(
        CheckpointConfig(), CheckpointWriter(), RunFolder(run, newest, {best: 1.0, newest: 2.0}), nemo_file.stem
    )
    with pytest.warns(UserWarning, match=r"step=00000004.ckpt could not be exported to .* is damaged.*Trying the next best"):
        checkpointing.finish(trainer)
    export_checkpoint(newest, run / "expected.nemo")
    assert nemo_file.read_bytes() == (run / "expected.nemo").read_bytes()
    flip_a_byte(newest)
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match=r"step=00000006\.ckpt could not be exported"):
        checkpointing.finish(trainer)


def test_a_run_without_validation_saves_too(data: Path, tmp_path: Path) -> None:
    more = ("trainer.limit_val_batches=0", "trainer.val_check_interval=2", f"{PARAMS}.every_n_train_steps=2", "trainer.max_steps=5")
    folder = train(config(data, tmp_path / "run", *more))
    assert checkpoint_names(folder) == ["step=00000005.ckpt", "step=00000004.ckpt"]
    assert list((folder / "checkpoints").glob("*.nemo"))
