"""The WSD schedule of training loops without NeMo."""

from __future__ import annotations

import pytest

from nemo_cmim.errors import ConfigError
from nemo_cmim.training.schedule import warmup_stable_decay


def test_rises_stays_and_falls() -> None:
    found = [warmup_stable_decay(step, 100) for step in range(100)]
    assert found[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert found[10:90] == [1.0] * 80
    assert found[90:] == pytest.approx([(10 - i) / 11 for i in range(10)])


def test_short_runs_and_shares_without_a_stable_part() -> None:
    assert warmup_stable_decay(0, 1) == 1.0
    assert [warmup_stable_decay(step, 2, warmup=0.0, decay=0.0) for step in range(2)] == [1.0, 1.0]
    assert min(warmup_stable_decay(step, 10, warmup=0.5, decay=0.5) for step in range(10)) > 0


@pytest.mark.parametrize(("step", "shares"), [(10, {}), (-1, {}), (0, {"warmup": 0.6, "decay": 0.5}), (0, {"warmup": -0.1})])
def test_refuses_other_steps_and_shares(step: int, shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        warmup_stable_decay(step, 10, **shares)
