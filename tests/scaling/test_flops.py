"""Floating-point operations and parameters, compared with torch's counter and with the tensors of the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nemo_cmim.config import HeadsConfig, NetworkConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses.contrastive import contrast
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.scaling.flops import Workload, forward_flops, matmuls, training_flops
from nemo_cmim.scaling.parameters import parameters

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "attention_heads": 4,
    "ffn_size": 96,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "max_positions": 64,
    "vocabulary_size": 61,
    "vocabulary_multiple": 16,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "one latent": {},
    "four latents": {"latents": 4},
    "point": {"posterior": "point", "latents": 2},
    "transformer": {"encoder": "transformer", "posterior": "point"},
    "hybrid": {"encoder": "hybrid", "latents": 3, "attention_heads": 8},
    "hybrid, one latent": {"encoder": "hybrid", "encoder_layers": 1},
    "properties": {"latents": 2, "heads": HeadsConfig(sources="hz", values=("MolWt", "TPSA"), bits=16)},
    "encoder only": {"decoder_layers": 0, "posterior": "point"},
}
BATCHES = [Workload(molecules=3, encoder_tokens=7, decoder_tokens=9), Workload(molecules=5, encoder_tokens=40, decoder_tokens=41)]


def network_of(case: str) -> NetworkConfig:
    return NetworkConfig(**(SIZES | NETWORKS[case]))


@pytest.mark.parametrize("work", BATCHES, ids=["short", "long"])
@pytest.mark.parametrize("case", NETWORKS)
def test_operations_equal_the_count_of_torch(case: str, work: Workload) -> None:
    """They are equal exactly. The counter does not support fused attention on a CPU, so attention runs as matrix multiplications."""
    config = network_of(case)
    network = CMIMNetwork(config).train()
    ids = torch.randint(6, 60, (work.molecules, work.encoder_tokens))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        posterior = network.encode(ids, torch.ones_like(ids, dtype=torch.bool))
        total = posterior.mean_BKD.sum() + posterior.variance_BKD.sum()
        if config.decoder_layers:
            decoder = torch.randint(6, 60, (work.molecules, work.decoder_tokens))
            states_BTD = network.hidden_states(decoder, posterior.mean_BKD, posterior.is_latent_BK)
            total = total + network.logits(states_BTD).sum()
            for predicted in network.heads(states_BTD.mean(1), posterior.mean_BKD).values():
                total = total + predicted.sum()
        forward = counter.get_total_flops()
        total.backward()
    assert (forward_flops(config, work), training_flops(config, work)) == (forward, counter.get_total_flops())


def test_the_contrastive_term_is_counted_too() -> None:
    """torch's counter counts three of four matrix multiplications of equal size; it does not count the in-place `addmm_`."""
    config = network_of("four latents")
    unit_BH = torch.randn(6, config.latents * config.hidden_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        contrast(unit_BH, unit_BH, 1.0, mean_of_negatives=True).sum().backward()
    with_term = Workload(molecules=6, encoder_tokens=7, decoder_tokens=8, candidates=6)
    without = Workload(molecules=6, encoder_tokens=7, decoder_tokens=8)
    assert training_flops(config, with_term) - training_flops(config, without) == counter.get_total_flops() * 4 / 3 > 0


def test_a_second_view_is_a_second_encoding() -> None:
    config = network_of("encoder only")
    one, two = (Workload(molecules=2, encoder_tokens=5, decoder_tokens=6, encodings=n) for n in (1, 2))
    assert forward_flops(config, two) == 2 * forward_flops(config, one)


@pytest.mark.parametrize("case", NETWORKS)
def test_parameters_are_those_of_the_network(case: str) -> None:
    config = network_of(case)
    assert parameters(config).total == sum(tensor.numel() for tensor in CMIMNetwork(config).parameters())


def test_parameters_of_the_papers_network() -> None:
    assert parameters(NetworkConfig()).total == 61_020_288
    assert parameters(NetworkConfig(latents=4)).total == pytest.approx(70.5e6, rel=1e-3)


def test_tensor_parallel_ranks_divide_all_except_the_posterior() -> None:
    config = NetworkConfig()
    work = Workload(molecules=4, encoder_tokens=10, decoder_tokens=11)
    posterior = sum(p.forward_flops for p in matmuls(config, work) if p.name == "mean and variance")
    assert posterior > 0
    for ranks in (2, 4, 8):
        assert forward_flops(config, work, ranks) - posterior == (forward_flops(config, work) - posterior) / ranks
        count = parameters(config)
        assert ranks * count.on_rank(ranks) - count.total == (ranks - 1) * count.replicated


def test_ranks_must_divide_heads() -> None:
    with pytest.raises(ConfigError, match=r"network.attention_heads \(8\) must be a multiple of the tensor-parallel size \(3\)"):
        matmuls(NetworkConfig(), BATCHES[0], 3)


def test_an_empty_batch_raises() -> None:
    with pytest.raises(ConfigError, match=r"workload\.molecules must be at least 1, found 0"):
        Workload(molecules=0, encoder_tokens=1, decoder_tokens=1)
