"""Weak scaling of training over gloo processes of one thread each, compared with the predictions of `nemo_cmim.scaling`.

    python -m benchmarks.scaling [--record]

The rates that the predictions use (matrix multiplications, elementwise operations, Adam, gloo with the same number of processes) are
measured first, without the network. If there are more processes than cores, they share cores: efficiency is relative to the cores in use.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.molecules import sample_smiles
from benchmarks.ranks import run_ranks
from benchmarks.report import record
from nemo_cmim.config import DataConfig, NetworkConfig
from nemo_cmim.cores import available_cores
from nemo_cmim.loader.dataset import make_loader
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.scaling import MACHINES, Machine, Plan, Prediction, parameters, predict, read_network

NETWORKS = {  # name: sizes, value of `model=`, micro-batch size
    "tiny": (read_network("conf/model/tiny.yaml"), "tiny", 64),
    "paper": (NetworkConfig(dropout=0.0), "molmim_70m", 8),
}
LAYOUTS = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)]  # tensor-parallel x data-parallel
Gloo = dict[int, tuple[float, float]]  # by number of processes: seconds of a hop, bytes/s


def median_seconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Median seconds of a call, after one warm-up call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def elementwise_rate(rows: int, width: int) -> float:
    """Bytes/s of a chain of layer norm, GELU and addition, forward and backward, with saved activations."""
    x = torch.randn(rows, width, requires_grad=True)

    def chain() -> None:
        y = x
        for _ in range(6):
            y = y + F.gelu(F.layer_norm(y, (width,)))
        y.backward(torch.ones_like(y))

    passes = 6 * (2 + 3 + 2 + 3 + 3 + 3)  # norm and GELU, each with backward; addition, and addition of two gradients
    return passes * 4 * rows * width / median_seconds(chain)


def calibrated(network: NetworkConfig, rows: int) -> Machine:
    """This computer as a `Machine`, measured with one thread and without the network.

    Args:
        network: Determines the shapes of the matrix multiplications and the number of parameters for Adam.
        rows: Number of molecules x positions of a micro-batch.
    """
    width, ffn = network.hidden_size, network.ffn_size
    square, out = torch.randn(1024, 1024), torch.empty(1024, 1024)
    peak = 2 * 1024**3 / median_seconds(lambda: torch.mm(square, square, out=out))
    shapes = [(rows, width, 3 * width), (rows, width, ffn), (rows, ffn, width), (width, rows, ffn)]
    factors = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in shapes]
    reached = sum(2 * m * k * n for m, k, n in shapes) / median_seconds(lambda: [a @ b for a, b in factors])
    big = torch.randn(16_000_000)
    bandwidth = 12 * len(big) / median_seconds(lambda: torch.add(big, 1.0, out=big)) * 2 / 3
    elementwise = elementwise_rate(rows, width)
    count = parameters(network).total
    weights = [torch.zeros(512, 512, requires_grad=True) for _ in range(max(1, count // 512**2))]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.Adam(weights)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    adam = median_seconds(update, 5) / sum(weight.numel() for weight in weights)
    return dataclasses.replace(
        MACHINES["cpu"],
        peak_flops={"fp32": peak},
        matmul_efficiency=reached / peak,
        memory_bandwidth=bandwidth,
        memory_efficiency=elementwise / bandwidth,
        optimizer_bytes=adam * elementwise,
        shared_cores=available_cores(),
    )


def gloo_worker() -> None:
    """Times all-reduces on one rank; rank 0 prints seconds of a hop and bytes/s, by the formula of the prediction.

    All-reduces follow each other immediately, as in training: a process that must be woken up is much slower than one that polls.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    ranks, seconds = torch.distributed.get_world_size(), {}
    for size in (1_000, 6_000_000):
        numbers = torch.zeros(size)

        def some(numbers: torch.Tensor = numbers) -> None:
            for _ in range(20):
                torch.distributed.all_reduce(numbers)

        seconds[size] = median_seconds(some, 5) / 20
    if torch.distributed.get_rank() == 0:
        hop = seconds[1_000] / 2 / math.ceil(math.log2(ranks))
        rate = 2 * (ranks - 1) / ranks * 4 * 6_000_000 / (seconds[6_000_000] - seconds[1_000])
        print(json.dumps([hop, rate]))
    torch.distributed.destroy_process_group()


def read_steps(file: Path, warm_up: int) -> list[dict[str, float]]:
    """Steps in `steps.jsonl` after the warm-up.

    Raises:
        SystemExit: If there are no steps after the warm-up.
    """
    steps = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if len(steps) <= warm_up:
        raise SystemExit(f"{file} has {len(steps)} steps, of which {warm_up} are warm-up: raise --steps.")
    return steps[warm_up:]


def train(data: Path, folder: Path, override: str, micro_batch: int, layout: tuple[int, int], steps: int) -> Path:
    """Trains for `steps` steps; returns the file of step times."""
    tensor_parallel, data_parallel = layout
    ranks = tensor_parallel * data_parallel
    settings = {
        "model": override,
        "model.network.dropout": 0.0,
        "model.train_ds.folder": data,
        "model.train_ds.batch_size": micro_batch,
        "model.train_ds.workers": 0,  # only the processes that are measured
        "model.validation_ds.workers": 0,
        "model.validation_ds.limit": 64,
        "model.validation.reconstruct": 0,
        "model.parallel.tensor_model_parallel_size": tensor_parallel,
        "trainer.devices": ranks,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": steps,
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_progress_bar": False,
        "exp_manager.explicit_log_dir": folder,
        "exp_manager.checkpoint_callback_params.save_nemo_on_train_end": False,
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    run_ranks([sys.executable, "-m", "nemo_cmim.cli", "train", *overrides], ranks, folder.with_suffix(".log"))
    return folder / "metrics" / "steps.jsonl"


def padded_tokens(data: Path, micro_batch: int, data_parallel: int, steps: range) -> float:
    """Mean padded number of encoder tokens of a molecule in the micro-batches of these steps."""
    config = DataConfig(folder=str(data), batch_size=micro_batch, workers=0)
    loader = make_loader(config, steps=steps.stop, start_step=steps.start, ranks=data_parallel, max_tokens=127)
    return statistics.mean(bucket.encoder_BS.shape[1] for batch in loader for bucket in batch.buckets)


def planned(
    machine: Machine, gloo: Gloo, network: NetworkConfig, micro_batch: int, layout: tuple[int, int], tokens: float
) -> Prediction:
    """Prediction for a layout. The rates of gloo already include sharing of cores, so this slowdown is divided out."""
    ranks = layout[0] * layout[1]
    if ranks > 1:
        hop, rate = gloo[ranks]
        slow = machine.slowdown(ranks)
        machine = dataclasses.replace(machine, link_latency=hop / slow, link_bandwidth=rate * slow)
    plan = Plan(
        machine=machine, network=network, devices=ranks, tensor_parallel=layout[0], micro_batch=micro_batch, tokens=round(tokens)
    )
    return predict(plan)


def measure(name: str, data: Path, folder: Path, gloo: Gloo, args: argparse.Namespace) -> list[str]:
    """Table rows of one network."""
    network, override, micro_batch = NETWORKS[name]
    machine = calibrated(network, micro_batch * 36)
    print(
        f"{name}: matmuls {machine.peak_flops['fp32'] / 1e9:.0f} GFLOP/s, of which {machine.matmul_efficiency:.0%} with its shapes; "
        f"elementwise {machine.memory_bandwidth * machine.memory_efficiency / 1e9:.1f} GB/s; "
        f"Adam equivalent to {machine.optimizer_bytes:.0f} "
        "bytes per parameter; gloo, by processes: "
        + ", ".join(f"{n}: {hop * 1e3:.2f} ms, {rate / 1e9:.2f} GB/s" for n, (hop, rate) in gloo.items())
    )
    times: dict[tuple[int, int], list[float]] = {layout: [] for layout in LAYOUTS}
    waits: dict[tuple[int, int], list[float]] = {layout: [] for layout in LAYOUTS}
    for repeat in range(args.repeats):
        for layout in LAYOUTS:
            run = folder / f"{name}-{layout[0]}-{layout[1]}-{repeat}"
            steps = read_steps(train(data, run, override, micro_batch, layout, args.steps), args.warm_up)
            times[layout].append(statistics.median(step["seconds"] - step["seconds_data"] for step in steps))
            waits[layout].append(statistics.median(step["seconds_communication"] for step in steps))
            print(f"{name}, TP {layout[0]} x DP {layout[1]}, run {repeat}: {times[layout][-1]:.3f} s", flush=True)
    seconds = {layout: statistics.median(values) for layout, values in times.items()}
    rows = []
    for layout in LAYOUTS:
        tokens = padded_tokens(data, micro_batch, layout[1], range(args.warm_up, args.steps))
        prediction = planned(machine, gloo, network, micro_batch, layout, tokens)
        ranks = layout[0] * layout[1]
        efficiency = layout[1] * seconds[1, 1] / seconds[layout] / min(ranks, available_cores())
        rows.append(
            f"| {name}, {micro_batch} | {layout[0]} x {layout[1]} | {ranks} | {micro_batch * layout[1] / seconds[layout]:.1f} | "
            f"{efficiency:.0%} | {seconds[layout]:.3f} | {prediction.step_s:.3f} | **{prediction.step_s / seconds[layout]:.2f}** | "
            f"{statistics.median(waits[layout]) / seconds[layout]:.0%} | {prediction.communication_fraction:.0%} |"
        )
    return rows


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="tiny,paper", help="comma-separated; choices: tiny, paper (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs per layout (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="steps per run (default: %(default)s)")
    parser.add_argument(
        "--warm-up", type=int, default=6, help="first steps of a run, which are not measured (default: %(default)s)"
    )
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    parser.add_argument("--gloo-worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.gloo_worker:
        gloo_worker()
        return
    columns = ["network, micro-batch", "TP x DP", "processes", "molecules/s", "efficiency", "step, s", "predicted, s"]
    columns += ["predicted / measured", "waiting for gradients", "predicted communication"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "molecules.smi").write_text("\n".join(sample_smiles(20_000)) + "\n")
        prepare([folder / "molecules.smi"], folder / "data", max_tokens=127, valid_fraction=0.01, progress=False)
        gloo: Gloo = {}
        for ranks in sorted({tensor * data for tensor, data in LAYOUTS} - {1}):
            printed = run_ranks([sys.executable, "-m", "benchmarks.scaling", "--gloo-worker"], ranks, folder / "gloo.log")
            gloo[ranks] = tuple(json.loads(printed.splitlines()[-1]))
        for network in args.networks.split(","):
            lines += measure(network, folder / "data", folder, gloo, args)
    lines += [
        "",
        "Weak scaling: the micro-batch of a data-parallel rank is constant. Processes of one thread over gloo on "
        f"{available_cores()} cores, fp32, no dropout, MOSES in random micro-batches of four buckets; medians of "
        f"{args.steps - args.warm_up} steps and of {args.repeats} run(s), without the time to load data. Efficiency: molecules/s "
        f"relative to one process, divided by the cores in use (at most {available_cores()}). Predictions use rates measured without the "
        "network.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Scaling", "python -m benchmarks.scaling --record", lines, seed=0)


if __name__ == "__main__":
    main()
