"""What is equal on all ranks and what differs: gradients, their norm, random numbers. Runs real processes over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("megatron.core", reason="needs the [train] extra")

from nemo_cmim.config import NetworkConfig, ObjectiveConfig, ParallelConfig
from tests.mcore.test_parity import random_batch
from tests.training.ranks import start_function

SIZES = {
    "hidden_size": 32, "ffn_size": 64, "attention_heads": 4, "encoder_layers": 1, "decoder_layers": 1, "vocabulary_size": 61,
    "vocabulary_multiple": 16, "max_positions": 32, "init_std": 0.2, "dropout": 0.0,
}  # fmt: skip


def one_step(folder: Path, name: str, negatives: str, tp: int) -> None:
    """Gradients of four molecules that are distributed over data-parallel ranks, and their norm before clipping."""
    from megatron.core import parallel_state

    from nemo_cmim.losses import build_objective
    from nemo_cmim.mcore.network import MegatronCMIMNetwork
    from nemo_cmim.mcore.parallel import initialise
    from nemo_cmim.training import gradients as module
    from nemo_cmim.training.checkpoints.export import to_plain
    from nemo_cmim.training.gradients import Gradients, MasterWeights

    module._BUCKET = 1000  # elements: many buckets, as a large network has
    parallel = ParallelConfig(tensor_model_parallel_size=tp)
    initialise(parallel)
    config = NetworkConfig(**SIZES, posterior="point" if name == "ae" else "gaussian")  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = MegatronCMIMNetwork(config, parallel)
    group = parallel_state.get_data_parallel_group()
    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    parameters = MasterWeights(dict(network.named_parameters()), torch.float32)
    gradients = Gradients(parameters, group, parallel_state.get_tensor_model_parallel_group())
    objective = build_objective(ObjectiveConfig(name=name, negatives=negatives), config, group=group)

    generator = torch.Generator().manual_seed(1)
    batch, noise = random_batch(config, [7, 7, 7, 7], generator), torch.randn(4, 1, 32, generator=generator)
    own = type(batch)(*(field[rank::ranks] for field in batch))
    for _ in range(2):  # the second step must not see the first
        posterior = network.encode(own.encoder_BS, own.is_token_BS)
        z_BKD = posterior.sample(noise[rank::ranks]) if config.is_stochastic else posterior.mean_BKD
        log_p_x = network.log_p_x_given_z(network(own.decoder_BT, z_BKD), own.target_BT, own.is_target_BT)
        gradients.loss_scale = 16.0
        (16.0 * objective(log_p_x, z_BKD, posterior).loss).backward()
        norm = gradients.finish()
    gradients.clip(float(norm) / 2)
    for master in parameters.master.values():
        master.data = master.grad
    clipped = to_plain(network)
    if torch.distributed.get_rank() == 0:
        torch.save({"norm": norm, "clipped": clipped}, folder / "result.pt")


def gradients_of(folder: Path, ranks: int, tp: int, name: str, negatives: str) -> dict[str, Any]:
    folder.mkdir()
    start_function(folder, ranks, one_step, folder, name, negatives, tp).succeed()
    result: dict[str, Any] = torch.load(folder / "result.pt")
    squared = sum(float(g.double().square().sum()) for g in result["clipped"].values())
    torch.testing.assert_close(squared**0.5, float(result["norm"]) / 2, rtol=1e-4, atol=0)  # the true norm, of all shards
    return result


@pytest.mark.parametrize(("name", "negatives"), [("ae", "local"), ("mim", "local"), ("cmim", "global")])
def test_gradients_do_not_depend_on_the_distribution_of_the_batch(tmp_path: Path, name: str, negatives: str) -> None:
    """DP 1 x batch 4, DP 2 x batch 2, and DP 2 x batch 2 at TP 2."""
    expected = gradients_of(tmp_path / "one", 1, 1, name, negatives)
    for ranks, tp in ((2, 1), (4, 2)) if name == "cmim" else ((2, 1),):
        found = gradients_of(tmp_path / f"{ranks}-{tp}", ranks, tp, name, negatives)
        torch.testing.assert_close(found["norm"], expected["norm"], rtol=1e-5, atol=0)
        for key, gradient in expected["clipped"].items():
            scale = gradient.abs().max().clamp_min(1e-4)
            torch.testing.assert_close(found["clipped"][key] / scale, gradient / scale, rtol=0, atol=1e-4, msg=key)


def test_gradients_with_local_negatives_depend_on_the_distribution_of_the_batch(tmp_path: Path) -> None:
    """Shows that the test above can fail."""
    one, two = (gradients_of(tmp_path / str(ranks), ranks, 1, "cmim", "local")["norm"] for ranks in (1, 2))
    assert abs(float(one / two) - 1) > 1e-4


def draw(folder: Path) -> None:
    """Random numbers of a rank in a micro-batch: shared by the ranks of a network, and for the heads of this rank."""
    from megatron.core import parallel_state

    from nemo_cmim.mcore.parallel import initialise
    from nemo_cmim.mcore.random import seed_generators, tensor_parallel_rng

    initialise(ParallelConfig(tensor_model_parallel_size=2))
    drawn = []
    for step in (0, 1, 0):
        seed_generators(7, step, parallel_state.get_data_parallel_rank())
        before = torch.rand(3)
        with tensor_parallel_rng():
            own = torch.rand(3)
        drawn.append((before, own, torch.rand(3)))
    torch.save(drawn, folder / f"{torch.distributed.get_rank()}.pt")


def test_only_tensor_parallel_ranks_share_noise(tmp_path: Path) -> None:
    start_function(tmp_path, 4, draw, tmp_path).succeed()
    drawn = [torch.load(tmp_path / f"{rank}.pt") for rank in range(4)]  # ranks 0 and 1 hold one network, 2 and 3 another
    for here, there, same_network in ((0, 1, True), (2, 3, True), (0, 2, False), (1, 3, False)):
        for step in range(2):
            shared = [torch.equal(drawn[here][step][i], drawn[there][step][i]) for i in range(3)]
            assert shared == [same_network, False, same_network], (here, there, step)
    for rank in range(4):
        for i in range(3):
            assert torch.equal(drawn[rank][0][i], drawn[rank][2][i]), "the same position in the run gives the same numbers"
            assert not torch.equal(drawn[rank][0][i], drawn[rank][1][i])
