"""Estimates of memory passes, kept activations and messages, compared with counts on the Megatron network at TP 1 and TP 2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nemo_cmim.config import NetworkConfig
from nemo_cmim.scaling.flops import Workload
from nemo_cmim.scaling.parameters import parameters
from nemo_cmim.scaling.traffic import activation_bytes, elementwise_bytes, kernels, tensor_parallel_messages
from tests.processes import run_ranks

SIZES = {
    "hidden_size": 128,
    "ffn_size": 512,
    "attention_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "dropout": 0.0,
    "max_positions": 64,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one latent": ("cmim", {}),
    "three latents": ("cmim", {"latents": 3, "ffn_size": 256}),
    "bart": ("bart", {"encoder": "transformer", "posterior": "point"}),
    "hybrid": ("vae", {"encoder": "hybrid", "latents": 2, "attention_heads": 8}),
}
WORK = Workload(molecules=24, encoder_tokens=30, decoder_tokens=31)


@pytest.fixture(scope="module", params=[1, 2])
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    pytest.importorskip("megatron.core", reason="needs the [train] extra")
    from tests.scaling.traffic_worker import main

    folder = tmp_path_factory.mktemp("traffic")
    batch = {"molecules": WORK.molecules, "encoder_tokens": WORK.encoder_tokens, "decoder_tokens": WORK.decoder_tokens}
    cases = {name: {"objective": objective, "network": SIZES | changes, **batch} for name, (objective, changes) in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    run_ranks(main, request.param, folder)
    return request.param, json.loads((folder / "result.json").read_text())


def network_of(case: str) -> NetworkConfig:
    return NetworkConfig(**(SIZES | CASES[case][1]))


@pytest.mark.parametrize("case", CASES)
def test_messages_equal_those_that_ranks_send(counted: tuple[int, dict[str, Any]], case: str) -> None:
    ranks, results = counted
    expected = [[m.kind, m.elements] for m in tensor_parallel_messages(network_of(case), WORK) for _ in range(m.count)]
    assert results[case]["sent"] == (sorted(expected) if ranks > 1 else [])


@pytest.mark.parametrize("case", CASES)
def test_parameters_of_a_rank(counted: tuple[int, dict[str, Any]], case: str) -> None:
    ranks, results = counted
    assert results[case]["parameters"] == parameters(network_of(case)).on_rank(ranks)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("quantity", ["bytes", "operations", "kept"])
def test_estimates_are_close_to_counts(counted: tuple[int, dict[str, Any]], quantity: str, case: str) -> None:
    """Within 20 %: memory traffic, operations, and activations kept for backward, all without dropout."""
    ranks, results = counted
    network = network_of(case)
    estimate = {
        "bytes": elementwise_bytes(network, WORK, 4, ranks),
        "operations": kernels(network, WORK),
        "kept": activation_bytes(network, WORK, 4, ranks),
    }
    assert estimate[quantity] == pytest.approx(results[case][quantity], rel=0.2)
