"""Training runs on a GPU: each precision, an overflow, a kill, and checkpoints that move between GPU and CPU."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import nemo_cmim
from nemo_cmim.training.run import compose, train
from tests.training.ranks import start_function, train_with
from tests.training.runs import GIVEN_H, PARAMS, RESUME, checkpoint_names, config, overrides, steps

QUIET = ("model.validation.reconstruct=0", "trainer.val_check_interval=100")
EXACT = "trainer.deterministic=true"


@pytest.mark.parametrize("precision", ["32", "tf32", "bf16", "fp16"])
def test_a_batch_is_memorised(with_properties: Path, tmp_path: Path, on_gpu: tuple[str, ...], precision: str) -> None:
    more = (f"trainer.precision={precision}", "trainer.max_steps=150", "model.train_ds.limit=16", "model.optim.lr=3e-3")
    folder = train(config(with_properties, tmp_path / "run", *QUIET, *GIVEN_H, *on_gpu, *more, "model.optim.sched=null"))
    rows = steps(folder)
    assert rows[-1]["train/token_accuracy"] > 0.9 > 0.5 > rows[0]["train/token_accuracy"]
    assert nemo_cmim.load(next((folder / "checkpoints").glob("*.nemo")), "cpu").embed(["CCO"]).shape == (1, 32)


def test_muon_trains(with_properties: Path, tmp_path: Path, on_gpu: tuple[str, ...]) -> None:
    more = (
        "model.optim.name=muon",
        "model.optim.sched=null",
        "trainer.precision=bf16",
        "trainer.max_steps=60",
        "model.train_ds.limit=16",
    )
    rows = steps(train(config(with_properties, tmp_path / "run", *QUIET, *GIVEN_H, *on_gpu, *more)))
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]


def test_an_overflow_skips_steps_and_lowers_the_scale(data: Path, tmp_path: Path, on_gpu: tuple[str, ...]) -> None:
    more = ("trainer.precision=fp16", "model.loss_scale.initial=1e12", "model.loss_scale.hysteresis=1", "trainer.max_steps=40")
    rows = steps(train(config(data, tmp_path / "run", *QUIET, *on_gpu, *more)))
    assert rows[0]["skipped_steps"] == 1 and rows[-1]["skipped_steps"] < 40
    assert rows[-1]["loss_scale"] < 1e12 and rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_a_killed_run_resumes_bit_for_bit(data: Path, tmp_path: Path, on_gpu: tuple[str, ...]) -> None:
    more = (*QUIET, *on_gpu, EXACT, "trainer.precision=bf16", "trainer.max_steps=40", f"{PARAMS}.every_n_train_steps=4")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    arguments = overrides(data, killed, *more, RESUME)
    rank = start_function(tmp_path / "logs", 1, train_with, arguments)
    rank.wait_for(lambda: bool(checkpoint_names(killed)) if (killed / "checkpoints").is_dir() else False)
    rank.send(signal.SIGKILL)
    start_function(tmp_path / "again", 1, train_with, arguments).succeed()
    start_function(tmp_path / "straight-logs", 1, train_with, overrides(data, straight, *more)).succeed()
    assert [row["train_loss"] for row in steps(killed)] == [row["train_loss"] for row in steps(straight)]


def test_a_checkpoint_moves_from_the_gpu_to_the_cpu_and_back(data: Path, tmp_path: Path, on_gpu: tuple[str, ...]) -> None:
    """With a deterministic latent: GPU and CPU draw other noise from the same seed."""
    folder, reference = tmp_path / "run", tmp_path / "reference"
    more = (*QUIET, "objective=ae", f"{PARAMS}.every_n_train_steps=4")
    on_cpu = ("trainer.accelerator=cpu",)
    for number, (where, last) in enumerate(((on_gpu, 4), (on_cpu, 8), (on_gpu, 12))):
        arguments = overrides(data, folder, *more, *where, RESUME, f"trainer.max_steps={last}", "model.optim.sched=null")
        start_function(tmp_path / f"logs-{number}", 1, train_with, arguments).succeed()
    arguments = overrides(data, reference, *more, *on_cpu, "trainer.max_steps=12", "model.optim.sched=null")
    start_function(tmp_path / "logs-reference", 1, train_with, arguments).succeed()
    assert [row["step"] for row in steps(folder)] == list(range(1, 13))
    assert [row["train_loss"] for row in steps(folder)] == pytest.approx([r["train_loss"] for r in steps(reference)], rel=1e-3)


@pytest.mark.usefixtures("only_cuda")
def test_what_a_run_uses(data: Path, tmp_path: Path, on_gpu: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL, pinned memory and one kernel for Adam; more than one GPU was never used."""
    from nemo_cmim.training.model import MegatronCMIMModel

    seen: dict[str, Any] = {}

    def look(model: MegatronCMIMModel) -> None:
        batch = next(iter(model.train_dataloader()))
        seen["pinned"] = batch.buckets[0].encoder_BS.is_pinned()
        seen["backend"] = torch.distributed.get_backend()
        seen["fused"] = model.trainer.optimizers[0].param_groups[0]["fused"]
        seen["devices"] = {parameter.device.type for parameter in model.network.parameters()}

    monkeypatch.setattr(MegatronCMIMModel, "on_train_start", look)
    folder = train(compose(overrides(data, tmp_path / "run", *QUIET, *on_gpu, "trainer.max_steps=3")))
    assert seen == {"pinned": True, "backend": "nccl", "fused": True, "devices": {"cuda"}}
    assert json.loads((folder / "metrics" / "steps.jsonl").read_text().splitlines()[-1])["memory_bytes"] > 0
