"""The WSD schedule of training loops without NeMo."""

from __future__ import annotations

import pytest
import torch

from nemo_cmim.errors import ConfigError
from nemo_cmim.training.schedule import warmup_stable_decay


def test_rises_stays_and_falls() -> None:
    found = [warmup_stable_decay(step, 100, warmup=0.1, decay=0.2) for step in range(100)]
    assert found[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert found[10:81] == [1.0] * 71
    assert found[80:] == pytest.approx([(20 - i) / 20 for i in range(20)])


def test_equals_the_schedule_of_nemo() -> None:
    from nemo.core.optim.lr_scheduler import WarmupHoldAnnealLinear

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupHoldAnnealLinear(optimizer, warmup_ratio=0.1, hold_ratio=0.7, max_steps=100)
    for step in range(100):
        assert warmup_stable_decay(step, 100, warmup=0.1, decay=0.2) == pytest.approx(optimizer.param_groups[0]["lr"]), step
        optimizer.step()
        schedule.step()


def test_short_runs_and_runs_without_a_stable_part() -> None:
    assert warmup_stable_decay(0, 1, warmup=0.1, decay=0.1) == 1.0
    assert [warmup_stable_decay(step, 2, warmup=0.0, decay=0.0) for step in range(2)] == [1.0, 1.0]
    assert min(warmup_stable_decay(step, 10, warmup=0.5, decay=0.5) for step in range(10)) > 0


@pytest.mark.parametrize(("step", "warmup", "decay"), [(10, 0.1, 0.1), (-1, 0.1, 0.1), (0, 0.6, 0.5), (0, -0.1, 0.1)])
def test_other_steps_and_fractions_are_errors(step: int, warmup: float, decay: float) -> None:
    with pytest.raises(ConfigError, match="must be"):
        warmup_stable_decay(step, 10, warmup=warmup, decay=decay)
