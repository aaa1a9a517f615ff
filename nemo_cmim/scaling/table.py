"""Formats predictions as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..markdown import markdown_table
from .plan import Prediction

__all__ = ["describe", "table"]


def table(predictions: Sequence[Prediction], steps: int) -> str:
    """A Markdown table with a row for each plan.

    Args:
        predictions: At least one prediction.
        steps: Number of optimiser steps of the run.
    """
    head = [
        "devices",
        "global batch",
        "step time",
        "molecules/s",
        f"{steps:,} steps",
        "MFU",
        "communication",
        "memory",
        "bottleneck",
    ]
    rows = [_row(prediction, steps) for prediction in predictions]
    return markdown_table(head, rows)


def _row(p: Prediction, steps: int) -> list[str]:
    plan = p.plan
    batch = f"{plan.micro_batch:,} x {plan.data_parallel:,} x {plan.accumulation:,} = {plan.global_batch:,}"
    hours = p.hours(steps)
    memory = f"{p.memory_total / 1e9:.1f} GB" + (" (too large)" if p.memory_total > plan.machine.memory_bytes else "")
    return [
        f"{plan.ranks:,}" + (f" (TP {plan.tensor_parallel})" if plan.tensor_parallel > 1 else ""),
        batch,
        f"{p.step_s * 1e3:,.1f} ms",
        f"{p.molecules_per_s:,.0f}",
        f"{hours:,.1f} h" if hours < 1000 else f"{hours / 24:,.0f} days",
        f"{p.mfu:.1%}",
        f"{p.communication_fraction:.0%}",
        memory,
        _bottleneck(p),
    ]


def _bottleneck(p: Prediction) -> str:
    if p.is_host_bound and p.host_s > p.exposed_gradients_s + p.optimizer_s:
        return "host launch"
    parts = {
        "matmul": p.matmul_s,
        "elementwise": p.elementwise_s,
        "communication": p.tensor_parallel_s + p.negatives_s + p.exposed_gradients_s,
        "optimiser": p.optimizer_s,
    }
    return max(parts, key=lambda name: parts[name])


def describe(p: Prediction) -> str:
    """The parts of the step time and of the memory of a device."""
    plan = p.plan
    reduced = f"{p.gradient_bytes / 1e6:,.0f} MB of gradients averaged over {plan.data_parallel:,} ranks"
    seconds = {
        "matmul": p.matmul_s,
        "elementwise": p.elementwise_s,
        "host launch": p.host_s,
        "tensor parallelism": p.tensor_parallel_s,
        "negatives": p.negatives_s,
        "gradients": p.gradients_s,
        "gradients without overlap": p.exposed_gradients_s,
        "optimiser": p.optimizer_s,
    }
    times = ", ".join(f"{name} {value * 1e3:,.2f}" for name, value in seconds.items())
    memory = ", ".join(f"{name} {value / 1e9:,.2f}" for name, value in p.memory_bytes.items() if value)
    return "\n".join(
        [
            f"{plan.ranks:,} x {plan.machine.name}, {plan.precision}: {p.flops / 1e12:,.2f} TFLOP per device and step, {reduced}",
            f"  ms: {times}",
            f"  GB: {memory}",
        ]
    )
