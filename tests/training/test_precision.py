"""Half precision: fp32 master weights, the loss scale, and losses close to those of fp32."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import nemo_cmim
from nemo_cmim.config import LossScaleConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.precision import LossScale, parse_precision, set_matmul_precision
from nemo_cmim.training.run import train
from tests.training.runs import GIVEN_H, config, steps

SETTINGS = (
    "trainer.max_steps=8",
    "model.loss_scale.initial=64",
    "trainer.accumulate_grad_batches=2",
    "model.train_ds.batch_size=8",
    "model.validation.reconstruct=0",
    *GIVEN_H,
)


def watch_dtypes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[torch.dtype], set[torch.dtype]]]:
    """Types of the network's parameters, and of the master weights and what the optimiser updates, of each run that starts."""
    seen: list[tuple[set[torch.dtype], set[torch.dtype]]] = []

    def look(model: MegatronCMIMModel) -> None:
        assert model.training_state is not None
        master = {p.dtype for p in model.training_state.parameters.master.values()}
        optimised = {p.dtype for group in model.trainer.optimizers[0].param_groups for p in group["params"]}
        seen.append(({p.dtype for p in model.network.parameters()}, master | optimised))

    monkeypatch.setattr(MegatronCMIMModel, "on_train_start", look)
    return seen


@pytest.fixture(scope="module")
def fp32_steps(with_properties: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps of a run in fp32."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = watch_dtypes(monkeypatch)
        folder = train(config(with_properties, tmp_path_factory.mktemp("fp32") / "run", *SETTINGS))
    assert seen == [({torch.float32}, {torch.float32})]
    return steps(folder)


@pytest.mark.parametrize(("name", "dtype", "tolerance"), [("bf16", torch.bfloat16, 0.01), ("fp16", torch.float16, 0.005)])
def test_training_in_half_precision_is_close_to_fp32(
    with_properties: Path,
    fp32_steps: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    seen = watch_dtypes(monkeypatch)
    folder = train(config(with_properties, tmp_path / name, *SETTINGS, f"trainer.precision={name}"))
    found = steps(folder)
    assert seen == [({dtype}, {torch.float32})]
    for key in ("train_loss", "gradient_norm"):
        np.testing.assert_allclose(
            [r[key] for r in found], [r[key] for r in fp32_steps], rtol=tolerance * (10 if key != "train_loss" else 1)
        )
    model = nemo_cmim.load(next((folder / "checkpoints").glob("*.nemo")))
    weights = model.network.state_dict()["decoder_norm.weight"]
    assert weights.dtype == torch.float32 and not torch.equal(weights, weights.to(dtype).float()), "the master weights are exported"


def test_half_precision_resumes_bit_for_bit(with_properties: Path, tmp_path: Path) -> None:
    """Including the loss scale, which has changed before the checkpoint."""
    more = ("trainer.precision=fp16", "model.loss_scale.initial=256", "model.loss_scale.growth_interval=3", "trainer.max_steps=8")
    more += (
        "exp_manager.checkpoint_callback_params.every_n_train_steps=4",
        "trainer.val_check_interval=8",
        "model.validation.reconstruct=0",
    )
    straight = train(config(with_properties, tmp_path / "straight", *more))
    halfway = f"exp_manager.resume_from_checkpoint='{straight}/checkpoints/step=00000004.ckpt'"
    again = steps(train(config(with_properties, tmp_path / "again", *more, halfway)))
    assert again[0]["step"] == 5 and again[0]["loss_scale"] == 512
    for key in ("train_loss", "gradient_norm", "loss_scale"):
        assert [r[key] for r in again] == [r[key] for r in steps(straight)[4:]], key


def test_the_loss_scale_falls_after_overflows_and_grows_without() -> None:
    scale = LossScale(LossScaleConfig(initial=8.0, growth_interval=3, hysteresis=2, minimum=2.0), is_dynamic=True)
    history = []
    for overflowed in (True, True, True, False, False, False, True, True):
        scale.update(overflowed)
        history.append(scale.scale)
    assert history == [8, 4, 2, 2, 2, 4, 4, 2]
    assert scale.skipped == 5
    assert not scale.can_fall
    other = LossScale(LossScaleConfig(initial=8.0, growth_interval=3, hysteresis=2, minimum=2.0), is_dynamic=True)
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()
    constant = LossScale(LossScaleConfig(), is_dynamic=False)
    constant.update(overflowed=False)
    assert constant.scale == 1.0 and not constant.can_fall


@pytest.mark.parametrize("name", ["16-true", "64", "half"])
def test_an_unknown_precision_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"trainer.precision is '{name}'. Known: 32")):
        parse_precision(name)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"initial": 0.5}, "at least loss_scale.minimum"), ({"minimum": 0.0}, "positive"), ({"hysteresis": 0}, "at least 1")],
)
def test_a_loss_scale_out_of_range_is_an_error(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossScaleConfig(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "expected"), [(32, "highest"), ("bf16", "highest"), ("tf32", "high")])
def test_fp32_is_not_tf32_unless_it_is_requested(name: str | int, expected: str) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # as NVIDIA's containers do
        set_matmul_precision(name)
        assert torch.get_float32_matmul_precision() == expected
        assert parse_precision("tf32") == torch.float32
    finally:
        torch.set_float32_matmul_precision(before)
