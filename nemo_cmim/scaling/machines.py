"""Machines that a run is planned for. Peaks are those of data sheets; what is reached of them is an assumption, and marked so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..config import check
from ..errors import ConfigError

__all__ = ["MACHINES", "Machine", "machine_named"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of device, and how devices are connected. A bandwidth is of one direction.

    Attributes:
        name: For tables.
        devices_per_node: Devices that one node has.
        peak_flops: FLOP/s of dense matrix products by precision: fp32, fp16, bf16.
        product_share: Share of it that a matrix product reaches apart from `kernel_seconds`. Assumed for GPUs.
        memory_bytes: Of a device.
        memory_bandwidth: Bytes/s of a device.
        memory_share: Share of it that an elementwise operation reaches. Assumed for GPUs.
        optimizer_bytes: Bytes per parameter that collecting, clipping and Adam move in a step, at the rate of elementwise operations.
        kernel_seconds: Of a device, lost with each operation. It is why small products reach a smaller share of the peak. Assumed.
        dispatch_seconds: Of the host, to start an operation; runs ahead of the device. 0 where the host is the device. Assumed.
        link_bandwidth: Bytes/s of a device to others of its node.
        link_latency: Seconds of a hop in a node. Assumed for GPUs.
        network_bandwidth: Bytes/s of a node to others.
        network_latency: Seconds of a hop between nodes. Assumed for GPUs.
        link_share: Share of those bandwidths that a collective reaches. Assumed for GPUs.
        overlap: Share of a backward pass behind which gradients can be reduced. Assumed.
        shared_cores: Cores that the devices of a node share, where devices are processes; None: each has its own.
    """

    name: str
    devices_per_node: int
    peak_flops: Mapping[str, float]
    product_share: float
    memory_bytes: float
    memory_bandwidth: float
    memory_share: float
    optimizer_bytes: float
    kernel_seconds: float
    dispatch_seconds: float
    link_bandwidth: float
    link_latency: float
    network_bandwidth: float
    network_latency: float
    link_share: float
    overlap: float
    shared_cores: int | None = None

    def peak(self, precision: str) -> float:
        """FLOP/s at `precision`.

        Raises:
            ConfigError: The machine does not have it.
        """
        known = ", ".join(self.peak_flops)
        check(precision in self.peak_flops, f"{self.name} is not planned for in {precision}. Known for it: {known}.")
        return self.peak_flops[precision]

    def slowdown(self, devices: int) -> float:
        """By how much `devices` at work on one node slow each other down."""
        return max(1.0, devices / self.shared_cores) if self.shared_cores else 1.0


# Collecting and scaling 8, norm 4, clipping 8, Adam in torch's foreach form 76, which reads and writes memory once for each operation.
_GPU_OPTIMIZER_BYTES = 96.0

MACHINES: dict[str, Machine] = {
    # Tesla V100 data sheet (SXM: 125 TFLOP/s tensor, 15.7 fp32, 900 GB/s, NVLink 300 GB/s both directions); DGX-2: 16 of 32 GB on
    # NVSwitch, eight 100 Gb/s adapters.
    "v100": Machine(
        name="V100 SXM3 32 GB, 16 a node (DGX-2)",
        devices_per_node=16,
        peak_flops={"fp32": 15.7e12, "fp16": 125e12},
        product_share=0.5,
        memory_bytes=32e9,
        memory_bandwidth=900e9,
        memory_share=0.75,
        optimizer_bytes=_GPU_OPTIMIZER_BYTES,
        kernel_seconds=3e-6,
        dispatch_seconds=12e-6,
        link_bandwidth=150e9,
        link_latency=10e-6,
        network_bandwidth=100e9,
        network_latency=20e-6,
        link_share=0.8,
        overlap=0.8,
    ),
    # H100 SXM data sheet: 989 TFLOP/s fp16 and bf16 dense, 67 fp32 (torch's default does not use TF32), 3.35 TB/s, NVLink 900 GB/s
    # both directions; DGX H100: eight of them, eight 400 Gb/s adapters.
    "h100": Machine(
        name="H100 SXM 80 GB, 8 a node",
        devices_per_node=8,
        peak_flops={"fp32": 67e12, "fp16": 989e12, "bf16": 989e12},
        product_share=0.5,
        memory_bytes=80e9,
        memory_bandwidth=3.35e12,
        memory_share=0.75,
        optimizer_bytes=_GPU_OPTIMIZER_BYTES,
        kernel_seconds=3e-6,
        dispatch_seconds=10e-6,
        link_bandwidth=450e9,
        link_latency=8e-6,
        network_bandwidth=400e9,
        network_latency=15e-6,
        link_share=0.8,
        overlap=0.8,
    ),
    # Rounded from what `benchmarks.scaling` measured on two cores of an AMD EPYC (it measures again for its own comparison), the share
    # of memory with the time of steps in view. Adam's intermediate results stay in the cache there, so its bytes are fewer. Gloo's
    # reductions are work for the same cores: nothing hides them.
    "cpu": Machine(
        name="one thread of an AMD EPYC, gloo",
        devices_per_node=64,
        peak_flops={"fp32": 90e9},
        product_share=0.87,
        memory_bytes=4e9,
        memory_bandwidth=13e9,
        memory_share=0.4,
        optimizer_bytes=20.0,
        kernel_seconds=8e-6,
        dispatch_seconds=0.0,
        link_bandwidth=1.7e9,
        link_latency=1e-3,
        network_bandwidth=1.25e9,
        network_latency=1e-3,
        link_share=1.0,
        overlap=0.0,
        shared_cores=2,
    ),
}


def machine_named(name: str) -> Machine:
    """A machine of `MACHINES`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in MACHINES:
        raise ConfigError(f"Unknown machine {name!r}. Known: {', '.join(MACHINES)}.")
    return MACHINES[name]
