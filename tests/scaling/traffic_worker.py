"""One rank of the traffic test, under torchrun's environment variables.

Runs forward and backward of the networks in FOLDER/cases.json once, and (rank 0) writes to FOLDER/result.json the messages between ranks,
the memory traffic, the activations kept for backward, and the number of parameters.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nemo_cmim.config import NetworkConfig, ObjectiveConfig, ParallelConfig
from nemo_cmim.losses import build_objective
from nemo_cmim.mcore.network import MegatronCMIMNetwork

MATMULS = {"mm", "addmm", "bmm"}
NO_PASS = {"detach", "_unsafe_view", "empty_like", "new_empty", "empty", "new_empty_strided"}


class Passes(TorchDispatchMode):
    """Counts operations other than views, and the bytes that operations other than matrix multiplications read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if name.startswith(("c10d", "allreduce", "_allgather", "wait")) or is_view or name in NO_PASS:
            return out
        self.operations += 1
        if name not in MATMULS:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(touched(x) * x.element_size() for x in tensors)
        return out


def touched(x: torch.Tensor) -> int:
    """Number of elements of `x`; along expanded axes, elements count once."""
    count = 1
    for size, stride in zip(x.shape, x.stride()):
        count *= size if stride else 1
    return count


def measure(case: dict[str, Any], ranks: int) -> dict[str, Any]:
    network_config = NetworkConfig(**case["network"])
    network = MegatronCMIMNetwork(network_config, ParallelConfig(tensor_model_parallel_size=ranks)).train()
    objective = build_objective(ObjectiveConfig(name=case["objective"]), network_config)
    encoder_BS = torch.randint(6, 60, (case["molecules"], case["encoder_tokens"]))
    decoder_BT = torch.randint(6, 60, (case["molecules"], case["decoder_tokens"]))
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}
    alive = []  # keeps tensors alive, so that no address is reused

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    SENT.clear()
    with Passes() as passes:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            posterior = network.encode(encoder_BS, torch.ones_like(encoder_BS, dtype=torch.bool))
            z_BKD = posterior.sample() if network_config.is_stochastic else posterior.mean_BKD
            logits = network(decoder_BT, z_BKD, posterior.is_latent_BK)
            network.predicted_tokens(logits)
            log_p_x = network.log_p_x_given_z(logits, decoder_BT, torch.ones_like(decoder_BT, dtype=torch.bool))
            loss = objective(log_p_x, z_BKD, posterior).loss
        loss.backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "sent": sorted(SENT),
        "bytes": passes.bytes,
        "operations": passes.operations,
        "kept": sum(kept.values()),
        "parameters": parameters,
    }


SENT: list[tuple[str, int]] = []


def listen() -> None:
    """Records the kind of each collective and the number of elements of this rank."""
    all_reduce, all_gather = torch.distributed.all_reduce, torch.distributed.all_gather

    def noted_reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        SENT.append(("all_reduce", tensor.numel()))
        return all_reduce(tensor, *args, **kwargs)

    def noted_gather(parts: list[torch.Tensor], own: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        SENT.append(("all_gather", own.numel()))
        return all_gather(parts, own, *args, **kwargs)

    torch.distributed.all_reduce, torch.distributed.all_gather = noted_reduce, noted_gather


def main(folder: Path) -> None:
    ranks = int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel(ranks)
    listen()
    torch.manual_seed(0)
    cases = json.loads((folder / "cases.json").read_text())
    results = {name: measure(case, ranks) for name, case in cases.items()}
    if torch.distributed.get_rank() == 0:
        (folder / "result.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()
