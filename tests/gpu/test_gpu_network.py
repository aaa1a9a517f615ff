"""The Megatron network on a GPU equals the plain network, with gradients, in each precision, with and without Transformer Engine."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

pytest.importorskip("megatron.core", reason="needs the [train] extra")

from nemo_cmim.config import NetworkConfig, ObjectiveConfig, ParallelConfig
from nemo_cmim.losses import build_objective, log_p_x_given_z
from nemo_cmim.mcore.network import MegatronCMIMNetwork
from nemo_cmim.mcore.parallel import initialise
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.training.checkpoints.export import load_plain, to_plain
from tests.mcore.test_parity import random_batch

SIZES: dict[str, dict[str, Any]] = {
    "one latent": {},
    "three latents": {"latents": 3},
    "transformer encoder": {"encoder": "transformer", "posterior": "point"},
}
# Largest differences relative to the largest value of a tensor: of outputs, and of gradients.
TOLERANCES = {torch.float32: (2e-5, 1e-4), torch.bfloat16: (3e-2, 6e-2), torch.float16: (4e-3, 1e-2)}


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.detach().abs().max().clamp_min(1e-3).cpu()
    return float((found.detach().float().cpu() - expected.detach().float().cpu()).abs().max() / scale)


@pytest.mark.parametrize(
    ("dtype", "transformer_engine"),
    [(torch.float32, False), *((dtype, on) for dtype in (torch.bfloat16, torch.float16) for on in (False, True))],
)  # in fp32, Transformer Engine is never used
@pytest.mark.parametrize("size", SIZES)
def test_parity(device: str, size: str, dtype: torch.dtype, transformer_engine: bool) -> None:
    if transformer_engine and not (device == "cuda" and importlib.util.find_spec("transformer_engine")):
        pytest.skip("needs Transformer Engine")
    initialise(ParallelConfig(), device=device)
    generator = torch.Generator().manual_seed(0)
    config = NetworkConfig(
        hidden_size=64, ffn_size=128, attention_heads=4, encoder_layers=2, decoder_layers=2, dropout=0.0, vocabulary_size=61,
        vocabulary_multiple=16, max_positions=32, init_std=0.1, **SIZES[size],
    )  # fmt: skip
    plain = CMIMNetwork(config)
    for parameter in plain.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    weights = plain.state_dict()
    network = MegatronCMIMNetwork(config, ParallelConfig(transformer_engine=transformer_engine), dtype)
    assert (type(network.decoder.layers[0].mlp.linear_fc1).__name__ == "TEColumnParallelLinear") == transformer_engine
    load_plain(network, weights)
    network.to(device=device, dtype=dtype)
    batch = random_batch(config, [11, 4, 17, 9, 1], generator)
    noise = torch.randn(plain.encode(batch.encoder_BS, batch.is_token_BS).mean_BKD.shape, generator=generator)

    def run(model: Any, where: str, is_plain: bool) -> dict[str, torch.Tensor]:
        on_device = batch.to(where)
        posterior = model.encode(on_device.encoder_BS, on_device.is_token_BS)
        posterior = posterior._replace(mean_BKD=posterior.mean_BKD.float(), variance_BKD=posterior.variance_BKD.float())
        z_BKD = posterior.sample(noise.to(where))
        logits = model(on_device.decoder_BT, z_BKD, posterior.is_latent_BK)
        score = log_p_x_given_z if is_plain else model.log_p_x_given_z
        log_p_x = score(logits, on_device.target_BT, on_device.is_target_BT)
        objective = build_objective(ObjectiveConfig(name="cmim" if config.is_stochastic else "bart"), config)
        loss = objective(log_p_x, z_BKD, posterior).loss
        loss.backward()
        return {"mean": posterior.mean_BKD, "log_p_x": log_p_x, "loss": loss}

    expected, found = run(plain, "cpu", True), run(network, device, False)
    of_outputs, of_gradients = TOLERANCES[dtype]
    for name, value in expected.items():
        assert difference(found[name], value) <= of_outputs, name
    for parameter in network.parameters():
        parameter.data = parameter.grad  # so that `to_plain` gathers gradients as it gathers weights
    gradients = to_plain(network)
    for name, parameter in plain.named_parameters():
        assert difference(gradients[name], parameter.grad) <= of_gradients, name
