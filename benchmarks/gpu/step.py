"""A training step as a function: forward, loss, backward, clipping and Adam in one kernel, with torch's mixed precision."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.molecules import tokenized_batch
from benchmarks.training_step import Step
from nemo_cmim.config import NetworkConfig
from nemo_cmim.scaling import read_network
from nemo_cmim.types import TokenBatch

__all__ = ["SIZES", "Build", "example_batch", "sizes", "training_step"]

Build = Callable[[NetworkConfig], tuple[torch.nn.Module, Step]]

SIZES = {  # name: value of `model=`, molecules of a step
    "paper size": ("molmim_70m", 512),
    "small": ("small_cpu", 2048),
}


def sizes(setting: Setting) -> dict[str, tuple[str, NetworkConfig, int]]:
    """Networks to measure by name: value of `model=`, sizes, and molecules of a step."""
    chosen = {"tiny": ("tiny", 8)} if setting.is_rehearsal else SIZES
    return {name: (model, read_network(f"conf/model/{model}.yaml"), batch) for name, (model, batch) in chosen.items()}


def example_batch(setting: Setting, molecules: int) -> TokenBatch:
    """One batch on the device."""
    return tokenized_batch(setting.smiles[:molecules]).to(setting.device)


def training_step(build: Build, network: NetworkConfig, precision: str, setting: Setting) -> Callable[[TokenBatch], None]:
    """Returns a function that trains a network on a batch.

    Args:
        build: Builds the network, and a function that computes the loss of a batch.
        network: Its sizes.
        precision: Key of `DTYPES`: fp32 weights and `torch.autocast`; with fp16, `GradScaler` too.
        setting: Names the device.
    """
    torch.manual_seed(0)
    module, loss = build(network)
    module.to(setting.device).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(setting.device, enabled=precision == "fp16")

    def step(batch: TokenBatch) -> None:
        optimizer.zero_grad()
        with setting.autocast(precision):
            value = loss(batch)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    return step
