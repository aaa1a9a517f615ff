"""torch.compile and CUDA graphs for a training step of the plain network, compared with the same step as PyTorch runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.step import example_batch, sizes, training_step
from benchmarks.training_step import Step, plain_step
from nemo_cmim.config import NetworkConfig
from nemo_cmim.types import TokenBatch

__all__ = ["measure"]

MODES = {"torch.compile": "default", "torch.compile with CUDA graphs": "reduce-overhead"}


def compiled_step(config: NetworkConfig, mode: str) -> tuple[torch.nn.Module, Step]:
    """The plain network, with a compiled loss."""
    network, loss = plain_step(config)
    return network, torch.compile(loss, mode=mode, dynamic=False)


def measure(setting: Setting) -> list[str]:
    """Molecules/s of a bf16 step of each size, eager and compiled, on one batch."""
    lines = ["| size, molecules of a step | step | molecules/s | speed relative to eager | memory, GiB |", "|---|---|---|---|---|"]
    for size, (_, network, molecules) in sizes(setting).items():
        batch = example_batch(setting, molecules)
        seconds: dict[str, float] = {}
        memory: dict[str, str] = {}
        builders: dict[str, Callable[[NetworkConfig], tuple[torch.nn.Module, Step]]] = {"eager": plain_step}
        builders |= {name: functools.partial(compiled_step, mode=mode) for name, mode in MODES.items()}
        for name, build in builders.items():
            try:
                seconds[name], memory[name] = _timed(setting, build, network, batch)
            except Exception as error:  # noqa: BLE001 - an unsupported operation is a result, and the others are still measured
                lines.append(f"| {size}, {molecules} | {name} | failed: {type(error).__name__} | | |")
        for name, value in seconds.items():
            speed = f"{seconds['eager'] / value:.2f}" if "eager" in seconds else ""
            lines.append(f"| {size}, {molecules} | {name} | {molecules / value:,.0f} | {speed} | {memory[name]} |")
    return [
        *lines,
        "",
        "bf16, autocast, fused Adam; compilation is not timed. All steps have one shape, which real batches do not.",
    ]


def _timed(
    setting: Setting, build: Callable[[NetworkConfig], tuple[torch.nn.Module, Step]], network: NetworkConfig, batch: TokenBatch
) -> tuple[float, str]:
    before = setting.start_memory()
    step = functools.partial(training_step(build, network, "bf16", setting), batch)
    for _ in range(3):  # the first compiles, the second may record a graph
        step()
    return setting.seconds({"step": step}, calls=4)["step"], setting.peak_gib(before)
