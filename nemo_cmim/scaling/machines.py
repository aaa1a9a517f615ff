"""Machines for `nemo-cmim plan`. Peak rates are from data sheets; the fraction of them that is reached is an assumption, marked so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from ..mappings import check

__all__ = ["MACHINES", "Machine", "machine_named"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of device, and how devices are connected. Bandwidths are for one direction.

    Attributes:
        name: Name in tables.
        devices_per_node: Number of devices of a node.
        peak_flops: Peak FLOP/s of dense matrix multiplications by precision: fp32, fp16, bf16.
        matmul_efficiency: Fraction of the peak that a matrix multiplication reaches, without `kernel_seconds`. Assumed for GPUs.
        memory_bytes: Memory of a device, bytes.
        memory_bandwidth: Memory bandwidth of a device, bytes/s.
        memory_efficiency: Fraction of that bandwidth that an elementwise operation reaches. Assumed for GPUs.
        optimizer_bytes: Bytes per parameter that collecting gradients, clipping and Adam read and write in a step.
        kernel_seconds: Overhead of the device for each operation; because of it, small matrix multiplications reach a smaller fraction
            of the peak. Assumed.
        dispatch_seconds: Time of the host to launch an operation, asynchronously; 0 if the host is the device. Assumed.
        link_bandwidth: Bandwidth from a device to others of its node, bytes/s.
        link_latency: Latency of a hop within a node, seconds. Assumed for GPUs.
        network_bandwidth: Bandwidth from a node to other nodes, bytes/s.
        network_latency: Latency of a hop between nodes, seconds. Assumed for GPUs.
        link_efficiency: Fraction of these bandwidths that a collective reaches. Assumed for GPUs.
        overlap: Fraction of the backward pass that can overlap with the reduction of gradients. Assumed.
        shared_cores: Number of cores of a node that its devices share, if devices are processes; None: each device has its own.
    """

    name: str
    devices_per_node: int
    peak_flops: Mapping[str, float]
    matmul_efficiency: float
    memory_bytes: float
    memory_bandwidth: float
    memory_efficiency: float
    optimizer_bytes: float
    kernel_seconds: float
    dispatch_seconds: float
    link_bandwidth: float
    link_latency: float
    network_bandwidth: float
    network_latency: float
    link_efficiency: float
    overlap: float
    shared_cores: int | None = None

    def peak(self, precision: str) -> float:
        """Peak FLOP/s at `precision`.

        Raises:
            ConfigError: If the machine does not support the precision.
        """
        known = ", ".join(self.peak_flops)
        check(precision in self.peak_flops, f"{self.name} has no peak for precision {precision}. Choices: {known}.")
        return self.peak_flops[precision]

    def slowdown(self, devices: int) -> float:
        """Factor by which `devices` busy devices of a node slow each other down."""
        return max(1.0, devices / self.shared_cores) if self.shared_cores else 1.0


# Collecting and scaling 8, norm 4, clipping 8, Adam in torch's foreach form 76, since each of its operations is a pass over memory.
_GPU_OPTIMIZER_BYTES = 96.0

MACHINES: dict[str, Machine] = {
    # Tesla V100 data sheet (SXM: 125 TFLOP/s tensor, 15.7 fp32, 900 GB/s, NVLink 300 GB/s both directions); DGX-2: 16 of 32 GB on
    # NVSwitch, eight 100 Gb/s adapters.
    "v100": Machine(
        name="V100 SXM3 32 GB, 16 a node (DGX-2)",
        devices_per_node=16,
        peak_flops={"fp32": 15.7e12, "fp16": 125e12},
        matmul_efficiency=0.5,
        memory_bytes=32e9,
        memory_bandwidth=900e9,
        memory_efficiency=0.75,
        optimizer_bytes=_GPU_OPTIMIZER_BYTES,
        kernel_seconds=3e-6,
        dispatch_seconds=12e-6,
        link_bandwidth=150e9,
        link_latency=10e-6,
        network_bandwidth=100e9,
        network_latency=20e-6,
        link_efficiency=0.8,
        overlap=0.8,
    ),
    # H100 SXM data sheet: 989 TFLOP/s fp16 and bf16 dense, 67 fp32 (torch's default does not use TF32), 3.35 TB/s, NVLink 900 GB/s
    # both directions; DGX H100: eight of them, eight 400 Gb/s adapters.
    "h100": Machine(
        name="H100 SXM 80 GB, 8 a node",
        devices_per_node=8,
        peak_flops={"fp32": 67e12, "fp16": 989e12, "bf16": 989e12},
        matmul_efficiency=0.5,
        memory_bytes=80e9,
        memory_bandwidth=3.35e12,
        memory_efficiency=0.75,
        optimizer_bytes=_GPU_OPTIMIZER_BYTES,
        kernel_seconds=3e-6,
        dispatch_seconds=10e-6,
        link_bandwidth=450e9,
        link_latency=8e-6,
        network_bandwidth=400e9,
        network_latency=15e-6,
        link_efficiency=0.8,
        overlap=0.8,
    ),
    # Rounded measurements of `benchmarks.scaling` on two cores of an AMD EPYC (the benchmark measures again for its comparison). The
    # memory efficiency was adjusted to step times. Adam moves fewer bytes, since intermediate results stay in the cache. Reductions of
    # gloo use the same cores, so they do not overlap with computation.
    "cpu": Machine(
        name="one thread of an AMD EPYC, gloo",
        devices_per_node=64,
        peak_flops={"fp32": 90e9},
        matmul_efficiency=0.87,
        memory_bytes=4e9,
        memory_bandwidth=13e9,
        memory_efficiency=0.4,
        optimizer_bytes=20.0,
        kernel_seconds=8e-6,
        dispatch_seconds=0.0,
        link_bandwidth=1.7e9,
        link_latency=1e-3,
        network_bandwidth=1.25e9,
        network_latency=1e-3,
        link_efficiency=1.0,
        overlap=0.0,
        shared_cores=2,
    ),
}


def machine_named(name: str) -> Machine:
    """A machine from `MACHINES`.

    Raises:
        ConfigError: If the name is unknown.
    """
    if name not in MACHINES:
        raise ConfigError(f"Unknown machine {name!r}. Choices: {', '.join(MACHINES)}.")
    return MACHINES[name]
