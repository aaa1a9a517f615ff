"""One of two ranks: computes loss and gradient of its part of the batch, with global negatives."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from nemo_cmim.config import NetworkConfig, ObjectiveConfig
from nemo_cmim.losses import build_objective
from nemo_cmim.types import Posterior


def main(folder: Path) -> None:
    case = torch.load(folder / "case.pt", weights_only=False)
    torch.distributed.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    rows = case["rows"][rank]
    network = NetworkConfig(hidden_size=case["z"].shape[2], attention_heads=1, **case["network"])
    objective = build_objective(
        ObjectiveConfig(name=case["name"], tau=case["tau"], negatives="global", queue=case["queue"]),
        network,
        group=torch.distributed.group.WORLD,
    )
    results = []
    for step in range(2):  # the second step uses the queue, if there is one
        weight = case["weight"].clone().requires_grad_()
        z, positive = case["z"][rows] @ weight + step, case["positive"][rows] @ weight
        log_p_x = (z * 0.1).sum((1, 2)) if objective.composition.decodes else None
        output = objective(log_p_x, z, Posterior(z, torch.ones_like(z)), positive if objective.composition.needs_positive else None)
        weighted = output.loss * len(rows) * 2 / len(case["z"])  # parts may differ in size, and DDP averages over ranks
        weighted.backward()
        gradient, loss = weight.grad, weighted.detach()
        for tensor in (gradient, loss):
            torch.distributed.all_reduce(tensor)
            tensor.div_(2)
        results.append((loss, gradient))
    if rank == 0:
        torch.save({"results": results, "state": objective.state_dict()}, folder / "result.pt")
    torch.distributed.destroy_process_group()
