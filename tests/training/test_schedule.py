"""The schedule of `run=default_model`: a run that is to be ended early follows the same rates until then."""

from __future__ import annotations

import pytest
import torch
from nemo.core.optim.lr_scheduler import prepare_lr_scheduler
from omegaconf import OmegaConf

from nemo_cmim.training.optimisation import nemo_optim_config
from nemo_cmim.training.run import compose, model_settings


def rates(max_steps: int) -> list[float]:
    settings = model_settings(compose(["run=default_model", "model.train_ds.folder=somewhere"]))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.optim.lr)
    schedule = prepare_lr_scheduler(optimizer, OmegaConf.create(nemo_optim_config(settings.optim, max_steps)["sched"]))
    assert schedule is not None
    found = []
    for _ in range(max_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    return found


def test_an_early_end_leaves_the_run_until_then_as_it_was() -> None:
    long, short = rates(4000), rates(1000)
    end_of_hold = 150 + 800
    assert short[:end_of_hold] == long[:end_of_hold]
    assert short[0] < 1e-4 and set(short[150:end_of_hold]) == {1e-3}
    assert short[end_of_hold:] == sorted(short[end_of_hold:], reverse=True) and short[-1] == pytest.approx(1e-5, rel=1.0)
