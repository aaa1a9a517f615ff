"""Training in fp32, bf16 or fp16 as Megatron does it: parameters in half precision; master weights, gradients and losses in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor
from torch.optim import Optimizer

from ..config import LossScaleConfig
from ..errors import ConfigError
from .gradients import Gradients, MasterWeights

__all__ = ["LossScale", "MegatronPrecision", "parse_precision", "set_matmul_precision"]

_TF32 = "tf32"
_NAMES = {
    torch.float32: ("32", "32-true", "fp32", _TF32),
    torch.bfloat16: ("bf16", "bf16-mixed"),
    torch.float16: ("16", "16-mixed", "fp16"),
}


def parse_precision(name: str | int) -> torch.dtype:
    """Type of the network's parameters in forward and backward for a value of `trainer.precision`.

    Raises:
        ConfigError: If the name is unknown.
    """
    for dtype, names in _NAMES.items():
        if str(name) in names:
            return dtype
    known = "; ".join(", ".join(names) for names in _NAMES.values())
    raise ConfigError(f"trainer.precision is {name!r}. Known: {known}.")


def set_matmul_precision(name: str | int) -> None:
    """Chooses how this process multiplies fp32 matrices on GPUs: in TF32 for `trainer.precision=tf32`, else in fp32.

    NVIDIA's containers choose TF32 by an environment variable, which this overrides.
    """
    torch.set_float32_matmul_precision("high" if str(name) == _TF32 else "highest")


class LossScale:
    """Factor of the loss that keeps small gradients from vanishing in fp16.

    Args:
        config: Settings.
        is_dynamic: Whether the factor changes during training; otherwise it is 1.
    """

    def __init__(self, config: LossScaleConfig, is_dynamic: bool) -> None:
        self.config, self.is_dynamic = config, is_dynamic
        self.scale = config.initial if is_dynamic else 1.0
        self.skipped = 0  # steps skipped after an overflow
        self._good_steps, self._tolerance = 0, config.hysteresis

    @property
    def can_fall(self) -> bool:
        """Whether a smaller scale is allowed, so that an overflow may be due to the scale."""
        return self.is_dynamic and self.scale > self.config.minimum

    def update(self, overflowed: bool) -> None:
        """Updates the scale after a step.

        Args:
            overflowed: Whether a gradient of the step was not finite.
        """
        if not overflowed:
            self._good_steps += 1
            if self.is_dynamic and self._good_steps >= self.config.growth_interval:
                self._good_steps, self._tolerance = 0, self.config.hysteresis
                self.scale *= 2.0
            return
        self.skipped += 1
        self._good_steps = 0
        self._tolerance -= 1
        if self._tolerance <= 0:
            self.scale = max(self.scale / 2.0, self.config.minimum)

    def state_dict(self) -> dict[str, Any]:
        """The values that change during training."""
        return {"scale": self.scale, "skipped": self.skipped, "good_steps": self._good_steps, "tolerance": self._tolerance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the values of `state_dict`; without a dynamic scale, only the number of skipped steps."""
        self.skipped = state["skipped"]
        if self.is_dynamic:
            self.scale, self._good_steps, self._tolerance = state["scale"], state["good_steps"], state["tolerance"]


class MegatronPrecision(Precision):
    """Lightning plugin for a step: scales the loss, averages and clips gradients, updates the master weights and the network.

    Args:
        parameters: The network's weights and the master weights.
        gradients: Their gradients.
        loss_scale: Factor of the loss.
    """

    def __init__(self, parameters: MasterWeights, gradients: Gradients, loss_scale: LossScale) -> None:
        self.parameters, self.gradients, self.loss_scale = parameters, gradients, loss_scale

    def pre_backward(self, tensor: Tensor, module: LightningModule) -> Tensor:
        """Scales the loss."""
        self.gradients.loss_scale = self.loss_scale.scale
        return super().pre_backward(tensor * self.loss_scale.scale if self.loss_scale.is_dynamic else tensor, module)

    def optimizer_step(self, optimizer: Optimizer, model: LightningModule, closure: Callable[[], Any], **kwargs: Any) -> Any:
        """Takes one step. The weights stay as they are if a gradient overflowed on any rank.

        Raises:
            DivergenceError: If a hook of the model finds that the run has diverged.
        """
        result = closure()  # forward and backward of the last micro-batch of the step
        overflowed = not bool(self.gradients.finish().isfinite())
        self._after_closure(model, optimizer)  # hooks, then `clip_grad_by_norm`
        self.loss_scale.update(overflowed)
        if not overflowed:
            optimizer.step(**kwargs)
            self.parameters.update_network()
        return result

    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: float) -> None:
        """Clips gradients by their norm over the complete network."""
        self.gradients.clip(clip_val)

    def state_dict(self) -> dict[str, Any]:
        """State of the loss scale."""
        return self.loss_scale.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of the loss scale."""
        self.loss_scale.load_state_dict(state_dict)
