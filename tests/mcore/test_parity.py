"""Equivalence test: with equal weights and batch, the Megatron network at TP 1 and TP 2 equals the PyTorch network, with gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("megatron.core", reason="needs the [train] extra")

from nemo_cmim.config import HeadsConfig, NetworkConfig, ObjectiveConfig, ObservedPropertiesConfig
from nemo_cmim.losses import build_objective, log_p_x_given_z, property_terms
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.models.heads import mean_state
from nemo_cmim.types import ObservedProperties, TokenBatch
from tests.mcore.parity_worker import main
from tests.processes import run_ranks


def random_batch(network: NetworkConfig, lengths: list[int], generator: torch.Generator) -> TokenBatch:
    """Random tokens of the given lengths, padded."""
    size = len(lengths), max(lengths)
    is_token = torch.arange(size[1]) < torch.tensor(lengths)[:, None]
    ids = torch.randint(6, network.vocabulary_size, size, generator=generator) * is_token
    start = torch.full((size[0], 1), 2)
    target = torch.cat([ids, torch.zeros(size[0], 1, dtype=torch.long)], 1)
    target[torch.arange(size[0]), lengths] = 3
    is_target = torch.arange(size[1] + 1) <= torch.tensor(lengths)[:, None]
    return TokenBatch(ids, is_token, torch.cat([start, ids], 1), target, is_target)


HEADS = {source: HeadsConfig(sources=source, values=("MolWt", "MolLogP", "TPSA"), bits=16) for source in ("h", "hz")}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one latent": ("cmim", {}),
    "three latents": ("cmim", {"latents": 3}),
    "bart": ("bart", {"encoder": "transformer", "posterior": "point"}),
    "hybrid": ("vae", {"encoder": "hybrid", "latents": 2}),
    "encoder only": ("infonce", {"posterior": "point", "decoder_layers": 0}),
    "properties from h": ("mim", {"heads": HEADS["h"]}),
    "properties from h and z": ("cmim", {"latents": 2, "heads": HEADS["hz"]}),
    "point": ("cae", {"posterior": "point", "latents": 2}),
}


def property_terms_of(config: NetworkConfig) -> list[str]:
    return [f"log_p_{what}_given_{source}" for source in config.heads.sources for what in ("values", "bits")]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_posterior_logits_loss_and_gradients_agree(tmp_path: Path, ranks: int, case: str) -> None:
    objective_name, changes = CASES[case]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    sizes = {
        "hidden_size": 48,
        "ffn_size": 96,
        "attention_heads": 4,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "dropout": 0.0,
        "vocabulary_size": 61,
        "vocabulary_multiple": 16,
        "max_positions": 32,
        "init_std": 0.2,
    }
    config = NetworkConfig(**(sizes | changes))
    network = CMIMNetwork(config)
    for parameter in network.parameters():  # biases and norms differ from their initial values, so that an exchange is detected
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    batch = random_batch(config, [11, 4, 17, 9, 1], generator)
    other = random_batch(config, [8, 6, 12, 9, 2], generator)
    batch = batch._replace(encoder_BS=other.encoder_BS, is_token_BS=other.is_token_BS)  # as after enumeration
    posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
    noise = torch.randn(posterior.mean_BKD.shape, generator=generator)
    values = torch.randn(5, 3, generator=generator)
    values[2, 1] = float("nan")
    observed = ObservedProperties(values, torch.randint(2, (5, 16), generator=generator).float())
    weights = {name.removeprefix("log_p_"): 0.7 for name in property_terms_of(config)}
    objective_config = ObjectiveConfig(name=objective_name, properties=ObservedPropertiesConfig(**weights, sigma=0.5))
    saved = {
        "network": config,
        "objective": objective_config,
        "observed": observed,
        "weights": network.state_dict(),
        "batch": batch,
        "noise_BKD": noise,
    }
    torch.save(saved, tmp_path / "case.pt")

    z_BKD = posterior.sample(noise)
    positive_BKD = network.encode(*batch.decoder_view).mean_BKD
    logits, log_p_x, log_p_y = None, None, None
    if config.decoder_layers:
        states_BTD = network.hidden_states(batch.decoder_BT, z_BKD, posterior.is_latent_BK)
        predicted = network.heads(mean_state(states_BTD, batch.is_target_BT), z_BKD)
        log_p_y = property_terms(predicted, observed, sigma=0.5)
        logits = network.logits(states_BTD)
        log_p_x = log_p_x_given_z(logits, batch.target_BT, batch.is_target_BT)
    objective = build_objective(objective_config, config)
    loss = objective(log_p_x, z_BKD, posterior, positive_BKD if objective.composition.needs_positive else None, log_p_y).loss
    loss.backward()

    run_ranks(main, ranks, tmp_path)
    result = torch.load(tmp_path / "result.pt", weights_only=False)
    close = {"rtol": 2e-5, "atol": 2e-5}
    torch.testing.assert_close(result["mean"], posterior.mean_BKD, **close)
    torch.testing.assert_close(result["variance"], posterior.variance_BKD, **close)
    if logits is not None:
        torch.testing.assert_close(result["logits"], logits, **close)
    torch.testing.assert_close(result["loss"], loss.detach(), rtol=1e-6, atol=0)
    weights = network.state_dict()
    assert result["exported"].keys() == weights.keys()
    for name, parameter in network.named_parameters():
        assert torch.equal(result["exported"][name], weights[name]), name
        scale = parameter.grad.abs().max().clamp_min(1e-3)
        torch.testing.assert_close(
            result["gradients"][name] / scale, parameter.grad / scale, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
