"""The device that a model runs on, and the precision in which it computes."""

from __future__ import annotations

import torch

from ..errors import ConfigError

__all__ = ["device_of", "device_of_process", "dtype_of", "multiply_exactly"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(device: str | torch.device | None) -> torch.device:
    """The device of this name; None: a GPU if there is one, else the CPU.

    Raises:
        ConfigError: If it does not exist.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"The device {device!r} does not exist ({error}). Pass 'cpu', or 'cuda' if there is a GPU.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"The device {device!r} is not available: torch finds no GPU. Pass device='cpu'.")
    return chosen


def device_of_process(device: torch.device, number: int) -> torch.device:
    """The device of one of several processes, counted from 0: for "cuda" without a number, the GPUs in turn."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


def dtype_of(precision: str) -> torch.dtype:
    """The type of the weights for a precision.

    Raises:
        ConfigError: If the name is unknown.
    """
    if precision not in _DTYPES:
        raise ConfigError(f"precision is {precision!r}. Choose from {', '.join(_DTYPES)}.")
    return _DTYPES[precision]


def multiply_exactly(device: torch.device, precision: str) -> None:
    """Turns TF32 off in this process for fp32 on a GPU. NVIDIA's containers turn it on by an environment variable."""
    if device.type == "cuda" and precision == "fp32":
        torch.set_float32_matmul_precision("highest")
