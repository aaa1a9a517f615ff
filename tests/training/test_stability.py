"""Diverged runs stop, and save the batch that shows why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.errors import DivergenceError
from nemo_cmim.training.divergence import LossWatch
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.run import train
from nemo_cmim.types import MicroBatch
from tests.training.runs import config, steps


def multiply_weights(monkeypatch: pytest.MonkeyPatch, at_step: int, factor: float) -> None:
    step = MegatronCMIMModel.training_step

    def with_multiplied_weights(self: MegatronCMIMModel, batch: MicroBatch, batch_idx: int) -> Any:
        if self.trainer.global_step == at_step:
            self.network.posterior.mean.weight.data.mul_(factor)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(MegatronCMIMModel, "training_step", with_multiplied_weights)


@pytest.mark.parametrize("precision", ["32", "fp16"])
def test_a_loss_that_is_not_finite_stops_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    multiply_weights(monkeypatch, 3, float("nan"))
    with pytest.raises(DivergenceError, match=r"The loss is nan at step 3. The micro-batch is saved in .*failed"):
        train(config(data, tmp_path / "run", "trainer.max_steps=8", f"trainer.precision={precision}", "model.loss_scale.initial=1"))
    (facts_file,) = (tmp_path / "run" / "failed").glob("*.json")
    facts = json.loads(facts_file.read_text(), parse_constant=pytest.fail)  # NaN is not JSON
    assert facts["step"] == 3 and facts["rank"] == 0 and facts["why"] == "The loss is nan"
    assert len(facts["smiles"]) == 16
    saved = torch.load(facts_file.with_suffix(".pt"))
    assert sum(len(bucket["encoder_BS"]) for bucket in saved["buckets"]) == 16 and saved["observed"] == {}
    prepared = {line for file in data.parent.glob("*.smi") for line in file.read_text().split()}
    assert prepared & set(facts["smiles"]), "the molecules are readable"
    assert len(steps(tmp_path / "run")) == 3, "the step did not happen"


def test_the_saved_batch_is_the_cause(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, culprits = MegatronCMIMModel.training_step, []

    def first_is_bad(self: MegatronCMIMModel, batch: MicroBatch, batch_idx: int) -> Any:
        if batch_idx == 2:  # the first of two micro-batches of step 1
            culprits.append(batch.buckets[0].target_BT)
            kept = self.network.posterior.mean.bias.data.clone()
            self.network.posterior.mean.bias.data.fill_(float("nan"))
            loss = step(self, batch, batch_idx)
            self.network.posterior.mean.bias.data = kept
            return loss
        return step(self, batch, batch_idx)

    monkeypatch.setattr(MegatronCMIMModel, "training_step", first_is_bad)
    with pytest.raises(DivergenceError, match="The loss is nan at step 1"):
        train(config(data, tmp_path / "run", "trainer.max_steps=4", "trainer.accumulate_grad_batches=2"))
    saved = torch.load(next((tmp_path / "run" / "failed").glob("*.pt")))
    assert torch.equal(saved["buckets"][0]["target_BT"], culprits[0])


def test_a_gradient_that_is_not_finite_stops_a_run_in_fp32(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(self: MegatronCMIMModel) -> None:
        self.network.posterior.mean.bias.register_hook(lambda g: g * float("inf") if self.trainer.global_step == 2 else g)

    monkeypatch.setattr(MegatronCMIMModel, "on_fit_start", hook)
    with pytest.raises(DivergenceError, match="A gradient is not finite at step 2"):
        train(config(data, tmp_path / "run", "trainer.max_steps=4"))
    assert list((tmp_path / "run" / "failed").glob("step=00000002-rank=0.json"))


def test_a_loss_that_rises_above_its_first_value_stops_the_run(data: Path, tmp_path: Path) -> None:
    more = ("model.optim.lr=30", "model.stability.divergence_margin=20", "trainer.max_steps=60", "trainer.gradient_clip_val=0")
    with pytest.raises(DivergenceError, match=r"The loss has risen to .* nats per molecule from "):
        train(config(data, tmp_path / "run", *more))
    assert list((tmp_path / "run" / "failed").glob("*.json"))


def test_the_loss_may_rise_by_its_earlier_fall_or_the_margin() -> None:
    def diverges_at(losses: list[float], margin: float | None) -> int | None:
        watch = LossWatch(margin)
        return next((i for i, loss in enumerate(losses) if watch.has_diverged(loss)), None)

    fall = [300.0 - i for i in range(200)]  # to 100, smoothed some 120
    assert diverges_at(fall + [250.0] * 100, 50.0) is None, "it had fallen by more"
    assert diverges_at(fall + [400.0] * 100, 50.0) is not None
    assert diverges_at([-50.0] * 20 + [-5.0] * 100, 50.0) is None, "losses may be negative; the margin allows it"
    assert diverges_at([-50.0] * 20 + [60.0] * 100, 50.0) is not None
    assert diverges_at([0.0] * 20 + [1e9] * 100, None) is None
