"""Time of an optimiser step with Muon and with Adam, and accuracy of the orthogonalisation, for each number of iterations.

    python -m benchmarks.muon [--threads 1] [--record]

The weights are those of conf/model/small_cpu.yaml, the gradients random. Steps alternate, so that other load slows all of them; medians
are compared. torch's own Muon multiplies in bf16, which CPUs without bf16 instructions emulate.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.report import record
from benchmarks.timing import take_turns
from nemo_cmim.config import ParallelConfig
from nemo_cmim.mcore.network import MegatronCMIMNetwork
from nemo_cmim.mcore.parallel import initialise
from nemo_cmim.scaling import read_network
from nemo_cmim.training.muon import Muon, hidden_matrices, orthogonalise

ITERATIONS = (3, 4, 5)
FIXED = (3.4445, -4.7750, 2.0315)  # the polynomial of Jordan et al. 2024, the same in each iteration


def one_by_one(matrices: Tensor, iterations: int) -> Tensor:
    """`orthogonalise` in a loop over the matrices."""
    return torch.cat([orthogonalise(matrix[None], iterations) for matrix in matrices])


def measure_steps(repeats: int) -> dict[str, float]:
    """Median seconds of a step of each optimiser; torch's Muon is measured once, since it can take a minute."""
    network = MegatronCMIMNetwork(read_network("conf/model/small_cpu.yaml"), ParallelConfig())
    matrices = hidden_matrices(network)
    others = [parameter for parameter in network.parameters() if not any(parameter is matrix for matrix in matrices)]
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    steps: dict[str, Callable[[], object]] = {"torch.optim.Adam": torch.optim.Adam([*matrices, *others], lr=1e-3).step}
    for iterations in ITERATIONS:
        groups: list[dict[str, Any]] = [{"params": matrices, "is_matrix": True}, {"params": others}]
        steps[f"Muon, {iterations} iterations"] = Muon(groups, iterations=iterations).step
    seconds = median_seconds(steps, repeats)
    if hasattr(torch.optim, "Muon"):  # since torch 2.9
        theirs = torch.optim.Muon(matrices, ns_steps=5).step
        seconds |= median_seconds({"torch.optim.Muon for the matrices only, 5 iterations": theirs}, 1)
    return seconds


def measure_products(repeats: int) -> dict[str, float]:
    """Median seconds of the orthogonalisation of all hidden matrices, batched and in a loop."""
    network = MegatronCMIMNetwork(read_network("conf/model/small_cpu.yaml"), ParallelConfig())
    shapes = [matrix.shape for matrix in hidden_matrices(network)]
    stacks = [torch.randn(shapes.count(shape), *shape) for shape in sorted(set(shapes))]

    def on_all(function: Callable[[Tensor, int], Tensor], iterations: int) -> None:
        for stack in stacks:
            function(stack, iterations)

    kinds: dict[str, Callable[[Tensor, int], Tensor]] = {"batched": orthogonalise, "loop": one_by_one}
    calls = {f"{n} {kind}": functools.partial(on_all, kinds[kind], n) for n in ITERATIONS for kind in kinds}
    return median_seconds(calls, repeats)


def median_seconds(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call."""
    return {name: statistics.median(seconds) for name, seconds in take_turns(calls, repeats).items()}


def deviations(iterations: int, is_fixed: bool) -> tuple[float, float]:
    """Largest and root-mean-square distance from 1 of the singular values of a 256 x 256 matrix with condition number 1,000."""
    left, right = (nn.init.orthogonal_(torch.empty(256, 256)) for _ in range(2))
    matrix = left * torch.logspace(0, -3, 256) @ right
    if is_fixed:
        values = torch.linalg.svdvals(matrix) / matrix.norm()
        for _ in range(iterations):
            values = FIXED[0] * values + FIXED[1] * values**3 + FIXED[2] * values**5
    else:
        values = torch.linalg.svdvals(orthogonalise(matrix[None], iterations)[0])
    return float((values - 1).abs().max()), float((values - 1).square().mean().sqrt())


def main() -> None:
    """Measures time and accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="number of steps to measure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="number of threads (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    initialise(ParallelConfig())
    steps = measure_steps(args.repeats)
    lines = ["| optimiser | step, ms | step / Adam's |", "|---|---|---|"]
    lines += [f"| {name} | {1e3 * value:.0f} | {value / steps['torch.optim.Adam']:.1f} |" for name, value in steps.items()]
    products = measure_products(args.repeats)
    lines += ["", "| iterations | batched, ms | loop, ms | max. error | rms error | max., rms error with a fixed polynomial |"]
    lines += ["|---|---|---|---|---|---|"]
    for n in ITERATIONS:
        (most, mean), (fixed_most, fixed_mean) = deviations(n, is_fixed=False), deviations(n, is_fixed=True)
        times = f"{1e3 * products[f'{n} batched']:.0f} | {1e3 * products[f'{n} loop']:.0f}"
        lines.append(f"| {n} | {times} | {most:.2f} | {mean:.2f} | {fixed_most:.2f}, {fixed_mean:.2f} |")
    lines += [
        "",
        f"{args.threads} thread(s). Error: distance of singular values from 1, for a matrix with condition number 1,000. The fixed "
        "polynomial is that of Jordan et al. 2024, which torch.optim.Muon uses.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Muon", f"python -m benchmarks.muon --threads {args.threads} --record", lines, seed=0)


if __name__ == "__main__":
    main()
