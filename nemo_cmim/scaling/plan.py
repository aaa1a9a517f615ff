"""Predicts step time, memory and communication of a training run from sizes. See `docs/scaling.md` for formulas and assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..config import NetworkConfig
from ..mappings import check
from .flops import Workload, matmuls, training_flops
from .machines import Machine
from .parameters import parameters
from .traffic import activation_bytes, elementwise_bytes, kernels, tensor_parallel_messages

__all__ = ["ITEM_BYTES", "Plan", "Prediction", "all_gather_seconds", "all_reduce_seconds", "predict"]

ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
NEGATIVES = ("none", "local", "global")
_BUCKET_BYTES = 24e6  # gradients that are reduced together; the last bucket of a step does not overlap with backward
_STEP_KERNELS = 400  # operations: gradients copied into buckets, master weights into the network, and Adam
_SIMILARITY_ROWS = 1024  # rows of the similarity matrix that are computed at once


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a training run.

    Attributes:
        machine: Kind of nodes and devices.
        network: Sizes of the network.
        nodes: Number of nodes.
        devices: Number of devices on each node; None: all.
        tensor_parallel: Tensor-parallel size, within a node.
        micro_batch: Molecules in a micro-batch of one data-parallel rank.
        accumulation: Micro-batches of a rank in a step.
        tokens: Encoder tokens of a molecule, padding included; the decoder has one position more.
        precision: fp32 | fp16 | bf16.
        negatives: none | local (as in the paper) | global.
    """

    machine: Machine
    network: NetworkConfig = field(default_factory=NetworkConfig)
    nodes: int = 1
    devices: int | None = None
    tensor_parallel: int = 1
    micro_batch: int = 256
    accumulation: int = 1
    tokens: int = 41
    precision: str = "fp32"
    negatives: str = "local"

    def __post_init__(self) -> None:
        for name in ("nodes", "tensor_parallel", "micro_batch", "accumulation", "tokens"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}.")
        check(self.precision in ITEM_BYTES, f"precision must be {' | '.join(ITEM_BYTES)}, found {self.precision!r}.")
        check(self.negatives in NEGATIVES, f"negatives must be {' | '.join(NEGATIVES)}, found {self.negatives!r}.")
        check(
            self.tokens <= self.network.max_tokens,
            f"tokens must be at most {self.network.max_tokens} (network.max_positions - 1), found {self.tokens}.",
        )
        most, on_node = self.machine.devices_per_node, self.devices_on_node
        check(1 <= on_node <= most, f"devices must be from 1 to {most} on a node of {self.machine.name}, found {on_node}.")
        check(
            on_node % self.tensor_parallel == 0,
            f"tensor_parallel ({self.tensor_parallel}) must divide the number of devices of a node ({on_node}): tensor-parallel ranks "
            "communicate in every layer, so they must be on one node.",
        )
        self.machine.peak(self.precision)  # raises if there is none
        matmuls(self.network, self.work, self.tensor_parallel)  # raises if the ranks do not divide heads, FFN or vocabulary

    @classmethod
    def of_global_batch(cls, size: int | None, micro_batch: int | None, **settings: Any) -> Plan:
        """A plan whose accumulation (or micro-batch, if it is None) follows from the global batch.

        Args:
            size: Molecules of a global batch; None: one micro-batch of each rank.
            micro_batch: Molecules of a micro-batch; None: the global batch divided by the number of data-parallel ranks.
            **settings: Further attributes of `Plan`.

        Raises:
            ConfigError: If the global batch is not a multiple of micro-batch x ranks, or if neither is given.
        """
        one = cls(micro_batch=micro_batch or 1, **settings)
        if size is None:
            check(micro_batch is not None, "Neither the global batch nor the micro-batch is given: set one of them.")
            return one
        per_pass = one.micro_batch * one.data_parallel
        accumulation, rest = divmod(size, per_pass)
        check(
            accumulation >= 1 and rest == 0,
            f"global batch {size:,} = micro-batch {one.micro_batch:,} x {one.data_parallel:,} data-parallel ranks x accumulation, but "
            f"{size:,} / {per_pass:,} = {size / per_pass:.6g} is not an integer.",
        )
        if micro_batch is None:
            return cls(micro_batch=accumulation, **settings)
        return cls(micro_batch=micro_batch, accumulation=accumulation, **settings)

    @property
    def devices_on_node(self) -> int:
        """Devices in use on each node."""
        return self.machine.devices_per_node if self.devices is None else self.devices

    @property
    def ranks(self) -> int:
        """Total number of devices."""
        return self.nodes * self.devices_on_node

    @property
    def data_parallel(self) -> int:
        """Number of data-parallel ranks."""
        return self.ranks // self.tensor_parallel

    @property
    def global_batch(self) -> int:
        """Molecules of a step, over all ranks."""
        return self.micro_batch * self.data_parallel * self.accumulation

    @property
    def work(self) -> Workload:
        """Sizes of a micro-batch."""
        candidates = {"none": 0, "local": self.micro_batch, "global": self.micro_batch * self.data_parallel}[self.negatives]
        return Workload(
            molecules=self.micro_batch, encoder_tokens=self.tokens, decoder_tokens=self.tokens + 1, candidates=candidates
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predictions for a plan. Times are for one step of one device, in seconds.

    Attributes:
        plan: The run.
        matmul_s: Matrix multiplications.
        elementwise_s: All other operations of forward and backward, and the overhead of all operations on the device.
        host_s: Time of the host to launch the operations of forward and backward, in parallel to the device.
        tensor_parallel_s: Collectives between tensor-parallel ranks.
        negatives_s: Gathering negatives, and reducing their gradients.
        gradients_s: Averaging gradients over data-parallel ranks.
        exposed_gradients_s: Part of `gradients_s` that does not overlap with backward.
        optimizer_s: Clipping and Adam.
        memory_bytes: Memory of a device by its use, bytes.
        flops: Floating-point operations of the matrix multiplications of one device in a step.
        gradient_bytes: Bytes of gradients that a rank averages over data-parallel ranks.
    """

    plan: Plan
    matmul_s: float
    elementwise_s: float
    host_s: float
    tensor_parallel_s: float
    negatives_s: float
    gradients_s: float
    exposed_gradients_s: float
    optimizer_s: float
    memory_bytes: dict[str, float]
    flops: int
    gradient_bytes: int

    @property
    def device_s(self) -> float:
        """Forward and backward on the device, including their communication."""
        return self.matmul_s + self.elementwise_s + self.tensor_parallel_s + self.negatives_s

    @property
    def is_host_bound(self) -> bool:
        """True if the device waits for the host to launch operations."""
        return self.host_s > self.device_s

    @property
    def step_s(self) -> float:
        """A complete step."""
        return max(self.device_s, self.host_s) + self.exposed_gradients_s + self.optimizer_s

    @property
    def communication_fraction(self) -> float:
        """Fraction of the step in which a device waits for communication."""
        return (self.tensor_parallel_s + self.negatives_s + self.exposed_gradients_s) / self.step_s

    @property
    def molecules_per_s(self) -> float:
        """Throughput of all devices together."""
        return self.plan.global_batch / self.step_s

    @property
    def achieved_flops(self) -> float:
        """FLOP/s of one device, matrix multiplications only."""
        return self.flops / self.step_s

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: `achieved_flops` as a fraction of the peak."""
        return self.achieved_flops / self.plan.machine.peak(self.plan.precision)

    @property
    def memory_total(self) -> float:
        """Memory of a device, bytes."""
        return sum(self.memory_bytes.values())

    def hours(self, steps: int) -> float:
        """Duration of `steps` steps in hours, without validation, checkpoints and restarts."""
        return steps * self.step_s / 3600


def predict(plan: Plan) -> Prediction:
    """Predicts a step: forward and backward, averaging of gradients, optimiser."""
    machine, network, work, shards = plan.machine, plan.network, plan.work, plan.tensor_parallel
    slow, micro_batches = machine.slowdown(plan.devices_on_node), plan.accumulation
    operations, owned = kernels(network, work), parameters(network).on_rank(shards)
    stream = machine.memory_bandwidth * machine.memory_efficiency
    matmul_s = slow * micro_batches * _matmul_seconds(plan)
    moved = elementwise_bytes(network, work, ITEM_BYTES[plan.precision], shards)
    moved += 8 * owned * (micro_batches > 1)  # gradients of further micro-batches are accumulated
    elementwise_s = slow * micro_batches * (moved / stream + operations * machine.kernel_seconds)
    gradients_s = slow * all_reduce_seconds(plan, 4 * owned, plan.data_parallel, spans_nodes=True)
    hidden = machine.overlap * (matmul_s + elementwise_s) * 2 / 3 / micro_batches  # backward of the last micro-batch
    last_bucket = gradients_s * min(1.0, _BUCKET_BYTES / (4 * owned))
    copies = 6 * owned * (ITEM_BYTES[plan.precision] != 4)  # master weights to the weights of the network
    optimizer_s = (machine.optimizer_bytes * owned + copies) / stream
    return Prediction(
        plan=plan,
        matmul_s=matmul_s,
        elementwise_s=elementwise_s,
        host_s=micro_batches * operations * machine.dispatch_seconds,
        tensor_parallel_s=slow * micro_batches * _tensor_parallel_seconds(plan),
        negatives_s=slow * micro_batches * _negatives_seconds(plan),
        gradients_s=gradients_s,
        exposed_gradients_s=max(gradients_s - hidden, last_bucket),
        optimizer_s=slow * optimizer_s + _STEP_KERNELS * machine.dispatch_seconds,
        memory_bytes=_memory(plan),
        flops=micro_batches * training_flops(network, work, shards),
        gradient_bytes=4 * owned,
    )


def _matmul_seconds(plan: Plan) -> float:
    """Roofline model: the time of each multiplication is the maximum of its arithmetic time and its memory time."""
    machine, seconds = plan.machine, 0.0
    for matmul in matmuls(plan.network, plan.work, plan.tensor_parallel):
        precision = "fp32" if matmul.name == "similarities" else plan.precision  # losses are in fp32
        arithmetic = matmul.forward_flops / (machine.peak(precision) * machine.matmul_efficiency)
        memory = matmul.elements * ITEM_BYTES[precision] / machine.memory_bandwidth
        seconds += (1 + matmul.backward) * max(arithmetic, memory)
    return seconds


def _tensor_parallel_seconds(plan: Plan) -> float:
    seconds = 0.0
    for message in tensor_parallel_messages(plan.network, plan.work):
        size = message.elements * (4 if message.is_fp32 else ITEM_BYTES[plan.precision])
        collective = all_reduce_seconds if message.kind == "all_reduce" else all_gather_seconds
        seconds += message.count * collective(plan, size, plan.tensor_parallel, spans_nodes=False)
    return seconds


def _negatives_seconds(plan: Plan) -> float:
    """Forward gathers the latents in fp32; backward sums their gradients over ranks with an all-reduce."""
    if plan.negatives != "global":
        return 0.0
    width = plan.network.hidden_size * (plan.network.latents if plan.network.has_bottleneck else 1)
    own, ranks = 4 * width * plan.micro_batch, plan.data_parallel
    counts = all_gather_seconds(plan, 8, ranks, spans_nodes=True)
    gather = all_gather_seconds(plan, own, ranks, spans_nodes=True)
    return counts + gather + all_reduce_seconds(plan, own * ranks, ranks, spans_nodes=True)


def _hop(plan: Plan, spans_nodes: bool) -> tuple[float, float]:
    """Bandwidth (bytes/s) and latency (s) of a hop. Between nodes, the rings of tensor-parallel shards share the adapters of a node."""
    machine = plan.machine
    if spans_nodes and plan.nodes > 1:
        bandwidth = min(machine.link_bandwidth, machine.network_bandwidth / plan.tensor_parallel)
        return bandwidth * machine.link_efficiency, machine.network_latency
    return machine.link_bandwidth * machine.link_efficiency, machine.link_latency


def all_reduce_seconds(plan: Plan, size: float, ranks: int, *, spans_nodes: bool) -> float:
    """Time of an all-reduce: a ring moves 2 (n - 1) / n of the bytes through each rank; the latency is that of a tree, both ways.

    Args:
        plan: The run.
        size: Bytes of each rank.
        ranks: Number of ranks, n.
        spans_nodes: Whether ranks of several nodes participate, if there are several.
    """
    if ranks == 1:
        return 0.0
    bandwidth, latency = _hop(plan, spans_nodes)
    return 2 * (ranks - 1) / ranks * size / bandwidth + 2 * math.ceil(math.log2(ranks)) * latency


def all_gather_seconds(plan: Plan, size: float, ranks: int, *, spans_nodes: bool) -> float:
    """Time of an all-gather: a ring passes the `size` bytes of each rank through all other ranks, in n - 1 hops."""
    if ranks == 1:
        return 0.0
    bandwidth, latency = _hop(plan, spans_nodes)
    return (ranks - 1) * (size / bandwidth + latency)


def _memory(plan: Plan) -> dict[str, float]:
    """Memory of a device by its use, bytes."""
    owned, itemsize = parameters(plan.network).on_rank(plan.tensor_parallel), ITEM_BYTES[plan.precision]
    is_half = itemsize != 4
    candidates = plan.work.candidates
    return {
        "parameters": itemsize * owned,
        "master weights": 4 * owned * is_half,
        "Adam moments": 8 * owned,
        "gradients": 4 * owned,
        "activations": activation_bytes(plan.network, plan.work, itemsize, plan.tensor_parallel),
        "similarities": 2 * 4 * min(_SIMILARITY_ROWS, plan.micro_batch) * candidates,
    }
