"""Converts the optimiser settings to those of NeMo's registry."""

from __future__ import annotations

from typing import Any

from torch.optim import Adam, AdamW, Optimizer

from ..config import OptimConfig
from ..errors import ConfigError
from ..mappings import to_mapping

__all__ = ["nemo_optim_config", "use_fused_kernel"]


def nemo_optim_config(optim: OptimConfig, max_steps: int) -> dict[str, Any]:
    """The argument of `ModelPT.setup_optimization`.

    NeMo's `NoamAnnealing` multiplies `lr` by d_model^-1/2 and step^-1/2. With the paper's numbers (lr 1e-4, minimum 1e-5, Sec. D.2),
    the learning rate would be below the minimum at every step. Here, the paper's lr is the peak, at the end of the warm-up: d_model
    is replaced by 1 / warm-up steps. Then 250k steps with 2,000 steps of warm-up decay to 0.9e-5, the paper's minimum.

    Args:
        optim: Settings.
        max_steps: Number of steps of the trainer; -1 if it has no limit.

    Raises:
        ConfigError: If the schedule is used without a limit of steps, or with both a ratio and a number of warm-up steps.
    """
    if optim.sched is None:
        return optim.arguments
    sched = {key: value for key, value in to_mapping(optim.sched).items() if value is not None}
    ratio, steps = optim.sched.warmup_ratio, optim.sched.warmup_steps
    if ratio is not None and steps is not None:
        raise ConfigError(
            f"optim.sched.warmup_ratio ({ratio}) and optim.sched.warmup_steps ({steps}) exclude each other. Set one of them to null."
        )
    if max_steps < 1:
        raise ConfigError(f"optim.sched requires a number of steps, found trainer.max_steps={max_steps}. Set trainer.max_steps.")
    sched["max_steps"] = max_steps
    if optim.sched.name == "NoamAnnealing":
        warmup = steps if steps is not None else int((ratio or 0.0) * max_steps)
        sched["d_model"] = 1.0 / max(1, warmup)
    return optim.arguments | {"sched": sched}


def use_fused_kernel(optimizer: Optimizer | None) -> None:
    """Makes torch's Adam and AdamW update all weights in one kernel. Not run on a GPU yet."""
    if isinstance(optimizer, (Adam, AdamW)):
        for group in optimizer.param_groups:
            group.update(fused=True, foreach=False)
