"""Our optimiser settings in the terms of NeMo's registry."""

from __future__ import annotations

from typing import Any

from ..config import OptimConfig, to_mapping
from ..errors import ConfigError

__all__ = ["nemo_optim_config"]


def nemo_optim_config(optim: OptimConfig, max_steps: int) -> dict[str, Any]:
    """What `ModelPT.setup_optimization` takes.

    NeMo's `NoamAnnealing` multiplies `lr` by d_model^-1/2 and step^-1/2, so that with the paper's numbers (lr 1e-4, minimum 1e-5,
    Sec. D.2) every step would lie below the minimum. The paper's lr is read as the peak, at the end of the warm-up: 1 / warm-up
    steps in the place of d_model gives just that, and then 250k steps with 2,000 of warm-up decay to 0.9e-5, the paper's minimum.

    Args:
        optim: Settings.
        max_steps: Optimiser steps of the trainer; -1 if it has no limit.

    Raises:
        ConfigError: A ratio of warm-up steps without a number of steps, or both a ratio and a number.
    """
    mapping = to_mapping(optim)
    if optim.sched is None:
        return {key: value for key, value in mapping.items() if key != "sched"}
    sched = {key: value for key, value in mapping["sched"].items() if value is not None}
    ratio, steps = optim.sched.warmup_ratio, optim.sched.warmup_steps
    if ratio is not None and steps is not None:
        raise ConfigError(
            f"optim.sched.warmup_ratio ({ratio}) and optim.sched.warmup_steps ({steps}) exclude each other. Set one to null."
        )
    if max_steps < 1:
        raise ConfigError(f"optim.sched needs a number of steps, found trainer.max_steps={max_steps}. Set trainer.max_steps.")
    sched["max_steps"] = max_steps
    if optim.sched.name == "NoamAnnealing":
        warmup = steps if steps is not None else int((ratio or 0.0) * max_steps)
        sched["d_model"] = 1.0 / max(1, warmup)
    return mapping | {"sched": sched}
