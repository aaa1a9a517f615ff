"""Muon: orthogonalisation, its step against a transcription, and which weights it updates. The same at each tensor-parallel size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from torch import Tensor, nn

from nemo_cmim.config import HeadsConfig, NetworkConfig, ParallelConfig
from nemo_cmim.mcore.network import MegatronCMIMNetwork
from nemo_cmim.mcore.parallel import initialise
from nemo_cmim.training import muon
from nemo_cmim.training.checkpoints.export import to_plain
from nemo_cmim.training.gradients import MasterWeights
from nemo_cmim.training.model import MegatronCMIMModel
from nemo_cmim.training.muon import Muon, hidden_matrices, orthogonalise
from nemo_cmim.training.run import train
from tests import reference
from tests.mcore.test_parity import random_batch
from tests.training.ranks import start_function
from tests.training.runs import config

SIZES: dict[str, Any] = {
    "hidden_size": 32, "ffn_size": 64, "attention_heads": 4, "encoder_layers": 1, "decoder_layers": 1, "vocabulary_size": 61,
    "vocabulary_multiple": 16, "max_positions": 32, "init_std": 0.2, "dropout": 0.0,
}  # fmt: skip


def with_condition(rows: int, columns: int, condition: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random matrix whose singular values run from 1 to 1 / condition."""
    left, _, right = torch.linalg.svd(torch.randn(rows, columns, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), min(rows, columns), dtype=torch.float64)
    return (left * values @ right).to(dtype)


SMALLEST = {1: 0.214, 2: 0.054, 3: 0.013, 4: 0.0031, 5: 0.00074, 6: 0.00018}
"""Singular values, relative to the norm, that the iterations bring into [0.8, 1.2]."""


def after_iterations(value: float, iterations: int) -> float:
    """What Newton-Schulz iterations make of a singular value, relative to the norm."""
    polynomials = muon._POLYNOMIALS[:iterations][::-1]
    value *= polynomials[0][0] / 1.01
    for _, a, b, c in polynomials:
        value = a * value + b * value**3 + c * value**5
    return value


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (40, 16), (16, 40), (1, 8)])
@pytest.mark.parametrize("condition", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("iterations", SMALLEST)
def test_singular_vectors_stay_and_singular_values_become_about_one(
    rows: int, columns: int, condition: float, iterations: int
) -> None:
    """Against a singular value decomposition, in float64."""
    matrix = 1e-3 * with_condition(rows, columns, condition)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    in_basis = left.T @ orthogonalise(matrix[None], iterations)[0] @ right.T
    torch.testing.assert_close(in_basis, in_basis.diagonal().diag(), rtol=0, atol=1e-9)
    relative, found = values / values.norm(), in_basis.diagonal()
    assert ((found - 1).abs() < 0.2001)[relative >= SMALLEST[iterations]].all()
    expected = [after_iterations(float(value), iterations) for value in relative]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.3)])
@pytest.mark.parametrize("shape", [(48, 48), (96, 32)])
def test_rounding_errors_do_not_grow(shape: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    matrix = with_condition(*shape, condition=1000.0, dtype=dtype)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    found = orthogonalise(matrix[None], 6)[0]
    assert found.dtype == dtype
    expected = torch.tensor([after_iterations(float(value / values.norm()), 6) for value in values], dtype=torch.float64)
    large = values / values.norm() > 0.02  # the vectors of smaller ones drown in the rounding errors of bf16
    in_basis = (left.T @ found.double() @ right.T)[large][:, large]
    torch.testing.assert_close(in_basis, expected[large].diag(), rtol=0, atol=tolerance)
    assert torch.linalg.matrix_norm(found.double(), 2) < 1.2 + tolerance


def test_iterations_in_bf16_are_close_to_those_in_fp32() -> None:
    matrices = with_condition(24, 40, condition=30.0, dtype=torch.float32)[None]
    expected, found = orthogonalise(matrices, 4), orthogonalise(matrices, 4, in_bf16=True)
    assert found.dtype == torch.float32
    assert 0 < torch.linalg.matrix_norm(found - expected).item() < 0.02 * torch.linalg.matrix_norm(expected).item()


def test_polynomials_have_the_least_error_on_their_intervals() -> None:
    """By Chebyshev's theorem: the error takes its maximum at four points, with alternating signs, as there are three coefficients.

    The interval of a polynomial contains the values of the one before it, with a margin of 1 % at its right end.
    """
    error = 0.2
    for largest, a, b, c in muon._POLYNOMIALS:
        turns = [((-3 * b + sign * (9 * b**2 - 20 * a * c) ** 0.5) / (10 * c)) ** 0.5 for sign in (-1, 1)]
        next_error = largest / 1.01 - 1
        values = [a * x + b * x**3 + c * x**5 for x in (1 - next_error, *turns, largest)]
        assert values == pytest.approx([1 - error, 1 + error, 1 - error, 1 + error], abs=3e-4)
        error = next_error


def test_a_batch_is_its_matrices_one_by_one() -> None:
    matrices = torch.randn(5, 12, 20) * torch.logspace(-6, 2, 5)[:, None, None]
    one_by_one = torch.cat([orthogonalise(matrix[None], 5) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices, 5), one_by_one)


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-25, 1e-15, 1e17])
def test_zero_tiny_and_huge_matrices_are_safe(scale: float) -> None:
    """Gradients with a larger norm do not arrive: their norm is not finite in fp32, so that the step is skipped or training stops."""
    matrix = torch.full((3, 4), scale)
    update = orthogonalise(matrix[None], 5)
    assert update.isfinite().all() and (update >= 0).all()
    assert bool((update.norm() > 0.6) and update.norm() < 1.21) == (scale > 1e-20)


@pytest.mark.parametrize("shape", [(10, 10), (14, 6), (6, 14)])
def test_a_step_is_that_of_the_reference(shape: tuple[int, int]) -> None:
    weight, gradients = nn.Parameter(torch.randn(shape, dtype=torch.float64)), [torch.randn(shape).double() for _ in range(3)]
    expected = reference.muon(weight.detach(), gradients, 0.1, 0.9, 0.2, lambda value: after_iterations(value, 4))
    optimiser = Muon([{"params": [weight], "is_matrix": True}], lr=0.1, momentum=0.9, weight_decay=0.2, iterations=4)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_an_update_has_the_size_of_one_of_adam() -> None:
    """For a random gradient: 0.2 times the learning rate."""
    for shape in ((64, 64), (128, 32), (32, 128)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape)
        Muon([{"params": [weight], "is_matrix": True}], lr=1.0).step()
        assert weight.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_other_weights_get_adam_bit_for_bit(decay: float) -> None:
    initial = [torch.randn(7, 5), torch.randn(5)]
    settings: dict[str, Any] = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": decay}
    results = []
    for optimiser_class in (Muon, torch.optim.AdamW if decay else torch.optim.Adam):
        parameters = [nn.Parameter(weight.clone()) for weight in initial]
        optimiser = optimiser_class([{"params": parameters}], **settings)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimiser.step()
        results.append(parameters)
    for found, expected in zip(*results):
        assert torch.equal(found, expected)


def test_zero_and_missing_gradients_leave_weights_unchanged() -> None:
    matrices, vector = [nn.Parameter(torch.randn(4, 6)) for _ in range(2)], nn.Parameter(torch.randn(3))
    before = [weight.detach().clone() for weight in (*matrices, vector)]
    optimiser = Muon([{"params": matrices, "is_matrix": True}, {"params": [vector]}])
    matrices[0].grad, vector.grad = torch.zeros(4, 6), torch.zeros(3)
    optimiser.step()
    for weight, old in zip((*matrices, vector), before):
        assert torch.equal(weight, old)


LINEAR_AND_CROSS = ("self_attention.linear_v", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
READ = (*LINEAR_AND_CROSS, "cross_attention.linear_q", "cross_attention.linear_kv", "cross_attention.linear_proj")
TOKEN_LAYER = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
HIDDEN = {
    "perceiver": {"encoder.read.0": READ, "encoder.think.0": LINEAR_AND_CROSS},
    "hybrid": {"encoder.layers.0": TOKEN_LAYER, "encoder.pool.read.0": READ, "encoder.pool.think.0": LINEAR_AND_CROSS},
    "transformer": {"encoder.layers.0": TOKEN_LAYER},
}
DECODER = {
    True: (*TOKEN_LAYER, "cross_attention.linear_v", "cross_attention.linear_proj"),
    False: (*TOKEN_LAYER, "cross_attention.linear_q", "cross_attention.linear_kv", "cross_attention.linear_proj"),
}
OTHER_MATRICES = {"embedding.word_embeddings.weight", "embedding.position_embeddings.weight", "heads.h.weight"}


@pytest.mark.parametrize("encoder", HIDDEN)
def test_hidden_matrices_are_those_of_the_layers(encoder: str) -> None:
    has_latents = encoder != "transformer"
    posterior, heads = "gaussian" if has_latents else "point", HeadsConfig(sources="h", bits=3)
    settings = NetworkConfig(**SIZES, encoder=encoder, posterior=posterior, heads=heads)
    initialise(ParallelConfig())
    network = MegatronCMIMNetwork(settings, ParallelConfig())
    chosen = set(hidden_matrices(network))
    found = {name for name, parameter in network.named_parameters() if parameter in chosen}
    layers = HIDDEN[encoder] | {"decoder.layers.0": DECODER[has_latents]}
    assert found == {f"{layer}.{part}.weight" for layer, parts in layers.items() for part in parts}
    others = {name for name, parameter in network.named_parameters() if parameter not in chosen and parameter.dim() == 2}
    latents = {"perceiver": {"encoder.latents_KD"}, "hybrid": {"encoder.pool.latents_KD"}, "transformer": set()}[encoder]
    assert others == OTHER_MATRICES | latents | (
        {"posterior.mean.weight", "posterior.log_variance.weight"} if has_latents else set()
    )


def test_the_model_builds_muon_from_its_settings(data: Path, tmp_path: Path) -> None:
    settings = ("model.optim.name=muon", "model.optim.momentum=0.8", "model.optim.iterations=3", "model.optim.weight_decay=0.1")
    initialise(ParallelConfig())
    trainer = pl.Trainer(max_steps=10, logger=False, accelerator="cpu", devices=1)
    model = MegatronCMIMModel(config(data, tmp_path, *settings).model, trainer)
    optimiser, _ = model.setup_optimization()
    assert isinstance(optimiser, Muon)
    matrices, others = optimiser.param_groups
    assert matrices["is_matrix"] and matrices["params"] == hidden_matrices(model.network)
    assert not others["is_matrix"]
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    for group in optimiser.param_groups:
        assert {key: group[key] for key in ("momentum", "iterations", "weight_decay", "betas", "eps")} == {
            "momentum": 0.8, "iterations": 3, "weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8,
        }  # fmt: skip


@pytest.mark.parametrize(("precision", "in_bf16"), [("32", False), ("bf16", True), ("fp16", False)])
def test_iterations_run_in_bf16_if_the_network_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, in_bf16: bool
) -> None:
    used = []

    def recorded(matrices_NRC: Tensor, iterations: int, in_bf16: bool) -> Tensor:
        used.append((matrices_NRC.dtype, in_bf16))
        return orthogonalise(matrices_NRC, iterations, in_bf16)

    monkeypatch.setattr(muon, "orthogonalise", recorded)
    settings = ("model.optim.name=muon", "trainer.max_steps=1", "model.loss_scale.initial=1", f"trainer.precision={precision}")
    train(config(data, tmp_path / "run", *settings))
    assert set(used) == {(torch.float32, in_bf16)}


def three_steps(folder: Path, tp: int) -> None:
    """Weights of the complete network after three steps."""
    parallel = ParallelConfig(tensor_model_parallel_size=tp)
    initialise(parallel)
    settings = NetworkConfig(**SIZES)
    torch.manual_seed(0)
    network = MegatronCMIMNetwork(settings, parallel)
    matrices = hidden_matrices(network)
    others = [parameter for parameter in network.parameters() if not any(parameter is matrix for matrix in matrices)]
    optimiser = Muon([{"params": matrices, "is_matrix": True}, {"params": others}], lr=0.01)
    parameters = MasterWeights(dict(network.named_parameters()), torch.float32)
    parameters.attach_to(optimiser)
    batch = random_batch(settings, [7, 5, 6, 7], torch.Generator().manual_seed(1))
    for _ in range(3):
        optimiser.zero_grad()
        z_BKD = network.encode(batch.encoder_BS, batch.is_token_BS).mean_BKD
        (-network.log_p_x_given_z(network(batch.decoder_BT, z_BKD), batch.target_BT, batch.is_target_BT).mean()).backward()
        optimiser.step()
    weights = to_plain(network)
    if torch.distributed.get_rank() == 0:
        torch.save(weights, folder / f"{tp}.pt")


def test_steps_are_the_same_at_each_tensor_parallel_size(tmp_path: Path) -> None:
    three_steps(tmp_path, 1)
    start_function(tmp_path / "logs", 2, three_steps, tmp_path, 2).succeed()
    one, two = (torch.load(tmp_path / f"{tp}.pt") for tp in (1, 2))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        if "kv.bias" in name:
            continue  # the gradient of a key's bias is zero but for rounding errors, which Adam scales up to whole steps
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5, msg=name)
