"""One rank of the equivalence test, under torchrun's environment variables.

Loads the PyTorch weights of FOLDER/case.pt into the Megatron network and runs loss and backward. Rank 0 writes the outputs to
FOLDER/result.pt, with gradients gathered under the names of the PyTorch network.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from megatron.core import parallel_state

from nemo_cmim.config import ParallelConfig
from nemo_cmim.losses import build_objective, property_terms
from nemo_cmim.mcore.network import MegatronCMIMNetwork
from nemo_cmim.models.heads import mean_state
from nemo_cmim.training.checkpoints.export import load_plain, to_plain


def main(folder: Path) -> None:
    case = torch.load(folder / "case.pt", weights_only=False)
    ranks = int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel(ranks)
    network = MegatronCMIMNetwork(case["network"], ParallelConfig(tensor_model_parallel_size=ranks))
    load_plain(network, case["weights"])
    exported = to_plain(network)

    batch = case["batch"]
    posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
    z_BKD = posterior.sample(case["noise_BKD"])
    positive_BKD = network.encode(*batch.decoder_view).mean_BKD
    log_p_x, full_logits, log_p_y = None, None, None
    objective = build_objective(case["objective"], case["network"])
    if case["network"].decoder_layers:
        states_TBD = network.hidden_states(batch.decoder_BT, z_BKD, posterior.is_latent_BK)
        predicted = network.heads(mean_state(states_TBD.transpose(0, 1), batch.is_target_BT), z_BKD)
        log_p_y = property_terms(predicted, case["observed"], case["objective"].properties.sigma)
        logits = network.logits(states_TBD)
        shards = [torch.empty_like(logits) for _ in range(ranks)]
        torch.distributed.all_gather(shards, logits.detach().clone())
        full_logits = torch.cat(shards, -1).transpose(0, 1)
        log_p_x = network.log_p_x_given_z(logits, batch.target_BT, batch.is_target_BT)
    loss = objective(log_p_x, z_BKD, posterior, positive_BKD if objective.composition.needs_positive else None, log_p_y).loss
    loss.backward()
    for parameter in network.parameters():
        parameter.data = parameter.grad  # so that `to_plain` gathers gradients as it gathers weights
    gradients = to_plain(network)
    if torch.distributed.get_rank() == 0:
        result = {
            "mean": posterior.mean_BKD,
            "variance": posterior.variance_BKD,
            "logits": full_logits,
            "loss": loss,
            "gradients": gradients,
            "exported": exported,
        }
        torch.save({k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in result.items()}, folder / "result.pt")
    torch.distributed.destroy_process_group()
