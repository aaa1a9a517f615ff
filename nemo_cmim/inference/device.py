"""The device that a model runs on."""

from __future__ import annotations

import torch

from ..errors import ConfigError

__all__ = ["device_of"]


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
