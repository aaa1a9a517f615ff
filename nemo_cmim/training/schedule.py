"""A learning-rate schedule for training loops without NeMo."""

from __future__ import annotations

from ..errors import ConfigError

__all__ = ["warmup_stable_decay"]


def warmup_stable_decay(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """Factor of the maximum learning rate: warm-up, stable, decay (WSD, Hu et al. 2024; Sec. D.1).

    It rises linearly to 1 over the first steps, stays there, and falls linearly over the last steps. No step has the factor 0. It equals
    NeMo's `WarmupHoldAnnealLinear` with a minimum learning rate of 0.

    Args:
        step: Index of the step, from 0 to `steps - 1`.
        steps: Number of all steps.
        warmup: Fraction of the steps that warm up.
        decay: Fraction of the steps that decay.

    Raises:
        ConfigError: If `step` is not one of the steps, or the fractions are negative or more than 1 together.
    """
    if not 0 <= step < steps:
        raise ConfigError(f"step must be from 0 to {steps - 1}, found {step}.")
    if warmup < 0 or decay < 0 or warmup + decay > 1:
        raise ConfigError(f"warmup ({warmup}) and decay ({decay}) must be at least 0, and at most 1 together.")
    rising, falling = round(warmup * steps), round(decay * steps)
    return min(1.0, (step + 1) / (rising + 1), (steps - step) / max(falling, 1))
