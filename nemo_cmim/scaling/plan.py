"""Predicts step time, memory and communication of a training run from sizes alone. `docs/scaling.md` tells formulas and assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..config import NetworkConfig, check
from .flops import Workload, products, training_flops
from .machines import Machine
from .parameters import parameters
from .traffic import activation_bytes, elementwise_bytes, kernels, tensor_parallel_messages

__all__ = ["ITEM_BYTES", "Plan", "Prediction", "all_gather_seconds", "all_reduce_seconds", "predict"]

ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
NEGATIVES = ("none", "local", "global")
_BUCKET_BYTES = 24e6  # of gradients that are reduced together; the last of a step cannot be hidden
_STEP_KERNELS = 400  # a parameter's gradient copied into its bucket, its main weight into the network, and Adam
_SIMILARITY_ROWS = 1024  # of the similarity matrix that are held at once


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        machine: What it runs on.
        network: Sizes.
        nodes: Nodes in use.
        devices: Devices in use on each node; None: all.
        tensor_parallel: Devices that share one network, of one node.
        micro_batch: Molecules that a data-parallel rank takes at a time.
        accumulation: Micro-batches of a rank in a step.
        tokens: Of the encoder, padding included; the decoder has one position more.
        precision: fp32 | fp16 | bf16.
        negatives: none | local (the paper's) | global.
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
            f"{self.tokens} tokens do not fit: the network takes at most {self.network.max_tokens} (network.max_positions - 1).",
        )
        most, on_node = self.machine.devices_per_node, self.devices_on_node
        check(1 <= on_node <= most, f"{on_node} devices on a node, but {self.machine.name} has 1 to {most}.")
        check(
            on_node % self.tensor_parallel == 0,
            f"tensor_parallel ({self.tensor_parallel}) must divide the devices of a node ({on_node}): its ranks talk in every layer, "
            "so they stay on one node.",
        )
        self.machine.peak(self.precision)
        products(self.network, self.work, self.tensor_parallel)  # refuses ranks that do not divide heads, FFN or vocabulary

    @classmethod
    def of_global_batch(cls, size: int | None, micro_batch: int | None, **settings: Any) -> Plan:
        """A plan whose accumulation, or micro-batch where none is given, follows from the molecules of a step.

        Args:
            size: Molecules of a step; None: one micro-batch of each rank.
            micro_batch: Molecules of a micro-batch; None: as many as a rank gets of the step.
            **settings: As `Plan` takes them.

        Raises:
            ConfigError: The numbers do not multiply, with the arithmetic.
        """
        one = cls(micro_batch=micro_batch or 1, **settings)
        if size is None:
            check(micro_batch is not None, "Neither a global batch nor a micro-batch is given: set one of them.")
            return one
        at_a_time = one.micro_batch * one.data_parallel
        accumulation, rest = divmod(size, at_a_time)
        check(
            accumulation >= 1 and rest == 0,
            f"global batch {size:,} = micro-batch {one.micro_batch:,} x {one.data_parallel:,} data-parallel ranks x accumulation, but "
            f"{size:,} / {at_a_time:,} = {size / at_a_time:.6g} is no whole number.",
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
        """Devices in all."""
        return self.nodes * self.devices_on_node

    @property
    def data_parallel(self) -> int:
        """Copies of the network."""
        return self.ranks // self.tensor_parallel

    @property
    def global_batch(self) -> int:
        """Molecules of a step."""
        return self.micro_batch * self.data_parallel * self.accumulation

    @property
    def work(self) -> Workload:
        """A micro-batch."""
        candidates = {"none": 0, "local": self.micro_batch, "global": self.micro_batch * self.data_parallel}[self.negatives]
        return Workload(
            molecules=self.micro_batch, encoder_tokens=self.tokens, decoder_tokens=self.tokens + 1, candidates=candidates
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is to be expected of a plan. Seconds are of one step of one device.

    Attributes:
        plan: The run.
        products_s: Matrix products.
        elementwise_s: All other operations of forward and backward, and what each operation costs a device to begin.
        host_s: What the host needs to start the operations of forward and backward; runs beside the device.
        tensor_parallel_s: Collectives between tensor-parallel ranks.
        negatives_s: Gathering negatives, and the way back of their gradient.
        gradients_s: Averaging gradients over data-parallel ranks.
        exposed_gradients_s: What backward does not hide of it.
        optimizer_s: Clipping and Adam.
        memory_bytes: Of a device, by what holds it.
        flops: Floating-point operations of matrix products of one device in a step.
        gradient_bytes: What a rank gives to the average over data-parallel ranks.
    """

    plan: Plan
    products_s: float
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
        """Forward and backward on the device, with the communication in them."""
        return self.products_s + self.elementwise_s + self.tensor_parallel_s + self.negatives_s

    @property
    def is_host_bound(self) -> bool:
        """The device waits for the host to start operations."""
        return self.host_s > self.device_s

    @property
    def step_s(self) -> float:
        """A whole step."""
        return max(self.device_s, self.host_s) + self.exposed_gradients_s + self.optimizer_s

    @property
    def communication_share(self) -> float:
        """Share of the step in which a device waits for others' numbers."""
        return (self.tensor_parallel_s + self.negatives_s + self.exposed_gradients_s) / self.step_s

    @property
    def molecules_per_s(self) -> float:
        """Of all devices together."""
        return self.plan.global_batch / self.step_s

    @property
    def achieved_flops(self) -> float:
        """FLOP/s of one device, matrix products only."""
        return self.flops / self.step_s

    @property
    def peak_share(self) -> float:
        """Share of the data sheet's peak."""
        return self.achieved_flops / self.plan.machine.peak(self.plan.precision)

    @property
    def memory_total(self) -> float:
        """Bytes of a device."""
        return sum(self.memory_bytes.values())

    def hours(self, steps: int) -> float:
        """Duration of so many steps, without validation, checkpoints and restarts."""
        return steps * self.step_s / 3600


def predict(plan: Plan) -> Prediction:
    """Adds up a step: forward and backward, gradients, optimiser."""
    machine, network, work, cut = plan.machine, plan.network, plan.work, plan.tensor_parallel
    slow, micro_batches = machine.slowdown(plan.devices_on_node), plan.accumulation
    operations, owned = kernels(network, work), parameters(network).on_rank(cut)
    stream = machine.memory_bandwidth * machine.memory_share
    products_s = slow * micro_batches * _products_seconds(plan)
    moved = elementwise_bytes(network, work, ITEM_BYTES[plan.precision], cut)
    moved += 8 * owned * (micro_batches > 1)  # gradients of further micro-batches are read and added up
    elementwise_s = slow * micro_batches * (moved / stream + operations * machine.kernel_seconds)
    gradients_s = slow * all_reduce_seconds(plan, 4 * owned, plan.data_parallel, spans_nodes=True)
    hidden = machine.overlap * (products_s + elementwise_s) * 2 / 3 / micro_batches  # backward of the last micro-batch
    last_bucket = gradients_s * min(1.0, _BUCKET_BYTES / (4 * owned))
    copies = 6 * owned * (ITEM_BYTES[plan.precision] != 4)  # main weights into the network's
    optimizer_s = (machine.optimizer_bytes * owned + copies) / stream
    return Prediction(
        plan=plan,
        products_s=products_s,
        elementwise_s=elementwise_s,
        host_s=micro_batches * operations * machine.dispatch_seconds,
        tensor_parallel_s=slow * micro_batches * _tensor_parallel_seconds(plan),
        negatives_s=slow * micro_batches * _negatives_seconds(plan),
        gradients_s=gradients_s,
        exposed_gradients_s=max(gradients_s - hidden, last_bucket),
        optimizer_s=slow * optimizer_s + _STEP_KERNELS * machine.dispatch_seconds,
        memory_bytes=_memory(plan),
        flops=micro_batches * training_flops(network, work, cut),
        gradient_bytes=4 * owned,
    )


def _products_seconds(plan: Plan) -> float:
    """Roofline: each product is as slow as the slower of its arithmetic and its memory."""
    machine, seconds = plan.machine, 0.0
    for product in products(plan.network, plan.work, plan.tensor_parallel):
        precision = "fp32" if product.name == "similarities" else plan.precision  # losses are in fp32
        arithmetic = product.forward_flops / (machine.peak(precision) * machine.product_share)
        memory = product.elements * ITEM_BYTES[precision] / machine.memory_bandwidth
        seconds += (1 + product.backward) * max(arithmetic, memory)
    return seconds


def _tensor_parallel_seconds(plan: Plan) -> float:
    seconds = 0.0
    for message in tensor_parallel_messages(plan.network, plan.work):
        size = message.elements * (4 if message.is_fp32 else ITEM_BYTES[plan.precision])
        collective = all_reduce_seconds if message.kind == "all_reduce" else all_gather_seconds
        seconds += message.count * collective(plan, size, plan.tensor_parallel, spans_nodes=False)
    return seconds


def _negatives_seconds(plan: Plan) -> float:
    """Forward gathers the latents in fp32; backward adds up the gradient of all of them on all ranks, as an all-reduce."""
    if plan.negatives != "global":
        return 0.0
    width = plan.network.hidden_size * (plan.network.latents if plan.network.has_bottleneck else 1)
    own, ranks = 4 * width * plan.micro_batch, plan.data_parallel
    counts = all_gather_seconds(plan, 8, ranks, spans_nodes=True)
    gather = all_gather_seconds(plan, own, ranks, spans_nodes=True)
    return counts + gather + all_reduce_seconds(plan, own * ranks, ranks, spans_nodes=True)


def _hop(plan: Plan, spans_nodes: bool) -> tuple[float, float]:
    """Bytes/s and seconds of a hop. Between nodes, rings of the tensor-parallel shards share a node's adapters."""
    machine = plan.machine
    if spans_nodes and plan.nodes > 1:
        bandwidth = min(machine.link_bandwidth, machine.network_bandwidth / plan.tensor_parallel)
        return bandwidth * machine.link_share, machine.network_latency
    return machine.link_bandwidth * machine.link_share, machine.link_latency


def all_reduce_seconds(plan: Plan, size: float, ranks: int, *, spans_nodes: bool) -> float:
    """A ring moves 2 (n - 1) / n of the bytes through each rank; latency is that of a tree, there and back.

    Args:
        plan: The run.
        size: Bytes that each rank gives.
        ranks: n.
        spans_nodes: Whether ranks of several nodes take part, if there are several.
    """
    if ranks == 1:
        return 0.0
    bandwidth, latency = _hop(plan, spans_nodes)
    return 2 * (ranks - 1) / ranks * size / bandwidth + 2 * math.ceil(math.log2(ranks)) * latency


def all_gather_seconds(plan: Plan, size: float, ranks: int, *, spans_nodes: bool) -> float:
    """A ring: each rank's `size` bytes pass through all others, in n - 1 hops."""
    if ranks == 1:
        return 0.0
    bandwidth, latency = _hop(plan, spans_nodes)
    return (ranks - 1) * (size / bandwidth + latency)


def _memory(plan: Plan) -> dict[str, float]:
    """Bytes of a device, by what holds it."""
    owned, itemsize = parameters(plan.network).on_rank(plan.tensor_parallel), ITEM_BYTES[plan.precision]
    is_half = itemsize != 4
    candidates = plan.work.candidates
    return {
        "parameters": itemsize * owned,
        "main weights": 4 * owned * is_half,
        "Adam's moments": 8 * owned,
        "gradients": 4 * owned,
        "activations": activation_bytes(plan.network, plan.work, itemsize, plan.tensor_parallel),
        "similarities": 2 * 4 * min(_SIMILARITY_ROWS, plan.micro_batch) * candidates,
    }
