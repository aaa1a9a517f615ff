"""Predictions compared with closed forms, and their direction when a setting changes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from nemo_cmim.cli import main
from nemo_cmim.config import NetworkConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.scaling import MACHINES, Machine, Plan, machine_named, parameters, predict, table, training_flops
from nemo_cmim.scaling.plan import all_gather_seconds, all_reduce_seconds

CONF = Path(__file__).resolve().parents[2] / "conf"
IDEAL = Machine(
    name="ideal",
    devices_per_node=4,
    peak_flops={"fp32": 1e12},
    matmul_efficiency=1.0,
    memory_bytes=1e12,
    memory_bandwidth=1e30,  # so that memory traffic takes no time
    memory_efficiency=1.0,
    optimizer_bytes=0.0,
    kernel_seconds=0.0,
    dispatch_seconds=0.0,
    link_bandwidth=1e9,
    link_latency=0.0,
    network_bandwidth=1e8,
    network_latency=0.0,
    link_efficiency=1.0,
    overlap=0.0,
)


def plan(machine: Machine = MACHINES["h100"], **settings: Any) -> Plan:
    return Plan(machine=machine, **({"precision": "fp32"} | settings))


def changed(**changes: Any) -> Machine:
    return dataclasses.replace(IDEAL, **changes)


def test_on_an_ideal_device_a_step_is_operations_over_peak() -> None:
    one = plan(IDEAL, devices=1)
    assert predict(one).step_s == pytest.approx(training_flops(one.network, one.work) / 1e12, rel=1e-9)
    assert predict(one).mfu == pytest.approx(1.0)


def test_one_rank_does_not_communicate() -> None:
    alone = predict(plan(IDEAL, devices=1, negatives="global"))
    assert (alone.gradients_s, alone.exposed_gradients_s, alone.tensor_parallel_s, alone.negatives_s) == (0, 0, 0, 0)
    assert alone.communication_fraction == 0


@pytest.mark.parametrize(("nodes", "bandwidth"), [(1, 1e9), (3, 1e8)])
def test_gradients_are_reduced_in_a_ring(nodes: int, bandwidth: float) -> None:
    size, ranks = 4 * parameters(NetworkConfig()).total, 4 * nodes
    prediction = predict(plan(IDEAL, nodes=nodes))
    assert prediction.gradients_s == pytest.approx(2 * (ranks - 1) / ranks * size / bandwidth)
    assert prediction.exposed_gradients_s == prediction.gradients_s  # nothing overlaps on this machine
    assert prediction.step_s == pytest.approx(prediction.matmul_s + prediction.gradients_s)


def test_all_buckets_except_the_last_overlap_with_backward() -> None:
    prediction = predict(plan(changed(overlap=1.0, link_bandwidth=1e12)))
    assert prediction.gradients_s < prediction.matmul_s / 2
    assert prediction.exposed_gradients_s == pytest.approx(prediction.gradients_s * 24e6 / prediction.gradient_bytes)


def test_gradients_are_reduced_in_fp32_in_every_precision() -> None:
    half, full = (predict(plan(precision=precision)) for precision in ("bf16", "fp32"))
    assert half.gradients_s == full.gradients_s > 0


def test_latency_counts_hops() -> None:
    slow = plan(changed(link_latency=1.0, network_latency=10.0), nodes=2)
    assert all_reduce_seconds(slow, 0, 8, spans_nodes=True) == 2 * 3 * 10.0
    assert all_reduce_seconds(slow, 0, 4, spans_nodes=False) == 2 * 2 * 1.0
    assert all_gather_seconds(slow, 0, 8, spans_nodes=True) == 7 * 10.0


def test_shards_share_the_adapters_of_a_node() -> None:
    one, two = (plan(IDEAL, nodes=2, tensor_parallel=ranks) for ranks in (1, 2))
    assert all_reduce_seconds(two, 1e9, 2, spans_nodes=True) == 2 * all_reduce_seconds(one, 1e9, 2, spans_nodes=True)


def test_accumulation_repeats_all_except_gradients_and_optimiser() -> None:
    one, two = (predict(plan(nodes=2, negatives="global", tensor_parallel=2, accumulation=n)) for n in (1, 2))
    for part in ("matmul_s", "host_s", "tensor_parallel_s", "negatives_s", "flops"):
        assert getattr(two, part) == 2 * getattr(one, part) > 0
    assert two.elementwise_s > 2 * one.elementwise_s  # gradients are accumulated
    assert (two.gradients_s, two.optimizer_s) == (one.gradients_s, one.optimizer_s)
    assert two.memory_bytes == one.memory_bytes


def test_memory_adds_up() -> None:
    count = parameters(NetworkConfig()).on_rank(2)
    prediction = predict(plan(precision="bf16", tensor_parallel=2))
    states = prediction.memory_total - prediction.memory_bytes["activations"] - prediction.memory_bytes["similarities"]
    assert states == (2 + 4 + 8 + 4) * count
    full = predict(plan(tensor_parallel=2)).memory_bytes
    assert sum(full[name] for name in ("parameters", "master weights", "Adam moments", "gradients")) == (4 + 0 + 8 + 4) * count


@pytest.mark.parametrize(
    ("smaller", "larger", "quantity"),
    [
        ({"tokens": 41}, {"tokens": 80}, "step_s"),
        ({"tokens": 41}, {"tokens": 80}, "memory_total"),
        ({"micro_batch": 256}, {"micro_batch": 2048}, "step_s"),
        ({"micro_batch": 256}, {"micro_batch": 2048}, "molecules_per_s"),
        ({"micro_batch": 2048}, {"micro_batch": 2048, "nodes": 8}, "molecules_per_s"),
        ({"precision": "bf16", "micro_batch": 2048}, {"precision": "fp32", "micro_batch": 2048}, "step_s"),
        ({"tensor_parallel": 2}, {"tensor_parallel": 1}, "memory_total"),
        ({"tensor_parallel": 1}, {"tensor_parallel": 2}, "communication_fraction"),
        ({"negatives": "local"}, {"negatives": "global"}, "negatives_s"),
        ({"negatives": "local"}, {"negatives": "global"}, "flops"),
    ],
)
def test_quantities_grow_with_settings(smaller: dict[str, Any], larger: dict[str, Any], quantity: str) -> None:
    assert getattr(predict(plan(**smaller)), quantity) < getattr(predict(plan(**larger)), quantity)


def test_weak_scaling_costs_only_communication() -> None:
    few, many = (predict(plan(nodes=nodes, micro_batch=2048, precision="bf16")) for nodes in (1, 64))
    assert few.step_s - few.exposed_gradients_s == pytest.approx(many.step_s - many.exposed_gradients_s)


def test_processes_share_cores() -> None:
    one, two, four = (predict(plan(MACHINES["cpu"], devices=n, micro_batch=16)) for n in (1, 2, 4))
    assert two.matmul_s == one.matmul_s
    assert four.matmul_s == 2 * one.matmul_s and four.optimizer_s == 2 * one.optimizer_s


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_parallel": 3}, "tensor_parallel (3) must divide the number of devices of a node (8)"),
        ({"tensor_parallel": 8, "network": NetworkConfig(attention_heads=4)}, "attention_heads (4) must be a multiple"),
        ({"devices": 9}, "devices must be from 1 to 8 on a node of H100 SXM 80 GB, 8 a node, found 9"),
        ({"tokens": 512}, "tokens must be at most 511 (network.max_positions - 1), found 512"),
        ({"precision": "fp8"}, "precision must be fp32 | fp16 | bf16, found 'fp8'"),
        (
            {"machine": MACHINES["v100"], "precision": "bf16"},
            "V100 SXM3 32 GB, 16 a node (DGX-2) has no peak for precision bf16.",
        ),
        ({"negatives": "all"}, "negatives must be none | local | global, found 'all'"),
        ({"nodes": 0}, "nodes must be at least 1, found 0"),
    ],
)
def test_impossible_plans_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(**settings)


def test_a_global_batch_is_divided() -> None:
    h100 = MACHINES["h100"]
    assert Plan.of_global_batch(16384, 256, machine=h100).accumulation == 8
    assert Plan.of_global_batch(16384, None, machine=h100, nodes=8).micro_batch == 256
    assert Plan.of_global_batch(None, 2048, machine=h100, nodes=64).global_batch == 2**20
    with pytest.raises(ConfigError, match=re.escape("1,000 / 2,048 = 0.488281 is not an integer")):
        Plan.of_global_batch(1000, 256, machine=h100)
    with pytest.raises(ConfigError, match="Neither the global batch nor the micro-batch"):
        Plan.of_global_batch(None, None, machine=h100)


def test_an_unknown_machine_raises_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"Unknown machine 'a100'\. Choices: v100, h100, cpu"):
        machine_named("a100")


def test_too_large_memory_is_marked() -> None:
    huge, small = (predict(plan(micro_batch=size)) for size in (65536, 256))
    assert "(too large)" in table([huge], 1) and "(too large)" not in table([small], 1)


PAPER = ["--machine", "v100", "--nodes", "4", "--micro-batch", "256", "--global-batch", "16384", "--precision", "fp16"]


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (PAPER, ["| 64 | 256 x 64 x 1 = 16,384 |"]),
        (["--nodes", "1", "8", "64", "--global-batch", "16384"], ["| 8 | 2,048 x 8", "| 64 | 256 x 64", "| 512 | 32 x 512"]),
        (["--network", str(CONF / "model" / "tiny.yaml"), "--micro-batch", "64"], ["| 8 | 64 x 8 x 1 = 512 |"]),
    ],
)
def test_the_command_prints_a_row_for_each_plan(arguments: list[str], rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments, "--verbose"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 2 + len(rows) + 1 + 3 * len(rows)
    for line, row in zip(lines[2:], rows):
        assert line.startswith(row)


def test_the_command_reports_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--global-batch", "1000", "--micro-batch", "256"]) == 2
    assert "not an integer" in capsys.readouterr().err
    assert main(["plan", "--network", "nowhere.yaml", "--micro-batch", "1"]) == 2
    assert "cannot be read from nowhere.yaml" in capsys.readouterr().err


DOCS = (CONF.parent / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", re.findall(r"^    nemo-cmim (plan .+)$", DOCS, flags=re.MULTILINE))
def test_tables_of_the_docs_equal_the_output_of_their_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 0
    assert capsys.readouterr().out in DOCS
