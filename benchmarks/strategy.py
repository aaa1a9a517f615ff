"""Cost of the training strategy compared with torch's DDP, cost of a checkpoint, and cost of resuming.

    python -m benchmarks.strategy [--record]

Two gloo processes with one thread each. The baseline is a step of the same Megatron network, loss, clipping and Adam with torch's
DistributedDataParallel, in a plain loop without trainer, metrics or checks. Our gradient buckets are measured in the same loop, and the
complete trainer separately. Runs alternate; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.molecules import sample_smiles
from benchmarks.ranks import run_ranks
from benchmarks.report import record
from nemo_cmim.mappings import hydra_quoted
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.training.checkpoints.format import newest_valid

SIZES = {"tiny": ("tiny", 64), "paper size": ("molmim_70m", 4)}  # override of a training config, molecules of a micro-batch
STEPS = 16
SKIPPED = 3  # first steps of a run, which warm up


def settings(data: Path, folder: Path, size: str, *more: str) -> list[str]:
    """Overrides of a run without validation and export."""
    model, batch = SIZES[size]
    return [
        f"model={model}", "model.network.dropout=0.0", f"model.train_ds.folder={hydra_quoted(data)}", f"model.train_ds.batch_size={batch}",
        "model.train_ds.buckets=1", "model.train_ds.workers=0", "model.validation_ds.workers=0", f"trainer.max_steps={STEPS}",
        "trainer.accelerator=cpu",
        "trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0", "trainer.enable_progress_bar=false", "trainer.devices=2",
        f"exp_manager.explicit_log_dir={hydra_quoted(folder)}", "exp_manager.checkpoint_callback_params.save_nemo_on_train_end=false",
        *more,
    ]  # fmt: skip


def bare_worker(overrides: list[str], result: Path, with_ddp: bool) -> None:
    """Runs a plain loop on one rank, with torch's DDP or our gradient buckets; rank 0 writes the seconds of its steps."""
    from megatron.core import parallel_state
    from torch.nn.parallel import DistributedDataParallel

    from nemo_cmim.loader.dataset import make_loader
    from nemo_cmim.losses import build_objective
    from nemo_cmim.mcore.network import MegatronCMIMNetwork
    from nemo_cmim.mcore.parallel import initialise
    from nemo_cmim.training.gradients import Gradients, MasterWeights
    from nemo_cmim.training.run import compose, model_settings

    torch.set_num_threads(1)
    config = model_settings(compose(overrides))
    assert config.train_ds is not None
    initialise(config.parallel)
    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    torch.manual_seed(0)
    objective = build_objective(config.objective, config.network)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = MegatronCMIMNetwork(config.network, config.parallel)

        def forward(self, batch: Any) -> torch.Tensor:
            posterior = self.network.encode(batch.encoder_BS, batch.is_token_BS)
            z_BKD = posterior.sample()
            log_p_x = self.network.log_p_x_given_z(self.network(batch.decoder_BT, z_BKD), batch.target_BT, batch.is_target_BT)
            return objective(log_p_x, z_BKD, posterior).loss

    model: torch.nn.Module = Loss()
    if with_ddp:
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    else:
        groups = parallel_state.get_data_parallel_group(), parallel_state.get_tensor_model_parallel_group()
        gradients = Gradients(MasterWeights(dict(model.named_parameters()), torch.float32), *groups)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    seconds, start = [], time.perf_counter()
    for batch in make_loader(config.train_ds, steps=STEPS, rank=rank, ranks=ranks):
        optimizer.zero_grad()
        model(batch.buckets[0]).backward()
        if with_ddp:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        else:
            gradients.finish()
            gradients.clip(1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    if rank == 0:
        result.write_text(json.dumps(seconds))


def train_worker(overrides: list[str], result: Path) -> None:
    """Runs our trainer on one rank; rank 0 writes its times."""
    from nemo_cmim.training.checkpoints.writer import CheckpointWriter
    from nemo_cmim.training.run import compose, train

    torch.set_num_threads(1)
    load, loading = CheckpointWriter.load, []

    def timed(*arguments: Any) -> dict[str, Any]:
        start = time.perf_counter()
        state = load(*arguments)
        loading.append(time.perf_counter() - start)
        return state

    CheckpointWriter.load = timed  # type: ignore[method-assign, assignment]
    start = time.perf_counter()
    folder = train(compose(overrides))
    if torch.distributed.get_rank() == 0:
        rows = [json.loads(line) for line in (folder / "metrics" / "steps.jsonl").open()]
        facts = {"seconds": [row["seconds"] for row in rows], "all": time.perf_counter() - start, "load": sum(loading)}
        result.write_text(json.dumps(facts))


def measure(worker: str, overrides: list[str], folder: Path) -> Any:
    """Runs a worker on two ranks; returns what rank 0 wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    command = [sys.executable, "-m", "benchmarks.strategy", "--worker", worker, "--result", str(result), *overrides]
    run_ranks(command, 2, folder / "log")
    return json.loads(result.read_text())


def overhead(data: Path, folder: Path, size: str, repeats: int) -> tuple[float, float, float]:
    """Median seconds of a step: torch's DDP, our buckets, the complete trainer."""
    ddp, buckets, trainer = [], [], []
    for number in range(repeats):
        place = folder / f"{size}-{number}".replace(" ", "-")
        ddp += measure("ddp", settings(data, place, size), place / "ddp")[SKIPPED:]
        buckets += measure("buckets", settings(data, place, size), place / "buckets")[SKIPPED:]
        trainer += measure("train", settings(data, place / "run", size), place / "train")["seconds"][
            SKIPPED:-1
        ]  # the last one saves
    return statistics.median(ddp), statistics.median(buckets), statistics.median(trainer)


def checkpoints(data: Path, folder: Path, size: str) -> tuple[float, float, float, float]:
    """Seconds of a step; cost of a checkpoint in steps, asynchronous and blocking; seconds to verify and read one."""
    params = "exp_manager.checkpoint_callback_params"
    costs, every = [], 5
    plain = statistics.median(measure("train", settings(data, folder / "run-none", size), folder / "none")["seconds"][SKIPPED:-1])
    for background in ("true", "false"):
        place = folder / f"run-{background}"
        more = (f"{params}.every_n_train_steps={every}", f"{params}.async_save={background}")
        seconds = measure("train", settings(data, place, size, *more), folder / background)["seconds"]
        costs.append(
            (sum(seconds[every : 3 * every]) / plain - 2 * every) / 2
        )  # the time of a checkpoint is counted in the steps after it
    resumed = settings(data, place, size, "exp_manager.resume_if_exists=true")
    start = time.perf_counter()
    newest_valid(place / "checkpoints")
    verified = time.perf_counter() - start
    return plain, costs[0], costs[1], verified + measure("train", resumed, folder / "resumed")["load"]


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    parser.add_argument("--repeats", type=int, default=2, metavar="N", help="runs of each kind (default: %(default)s)")
    parser.add_argument("--worker", choices=("ddp", "buckets", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "train":
            train_worker(args.overrides, args.result)
        else:
            bare_worker(args.overrides, args.result, with_ddp=args.worker == "ddp")
        return
    lines = [
        "| network, molecules per rank | DDP, plain loop | our buckets / DDP | complete trainer / DDP | checkpoint, asynchronous "
        "| checkpoint, blocking | verify and read |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "molecules.smi").write_text("\n".join(sample_smiles(4000)) + "\n")
        prepare([folder / "molecules.smi"], folder / "data", max_tokens=127, valid_fraction=0.01, progress=False)
        for size, (_, batch) in SIZES.items():
            ddp, buckets, trainer = overhead(folder / "data", folder / "overhead", size, args.repeats)
            step, background, waiting, reading = checkpoints(folder / "data", folder / f"checkpoints-{batch}", size)
            lines.append(
                f"| {size}, {batch} | {ddp:.3f} s | {buckets / ddp:.2f} | {trainer / ddp:.2f} | {background:.1f} steps "
                f"| {waiting:.1f} steps | {reading:.1f} s = {reading / step:.1f} steps |"
            )
            print(lines[-1], flush=True)
    lines += ["", "Two gloo processes, one thread each, DP 2, fp32. A checkpoint contains weights and both moments of Adam."]
    print("\n".join(lines))
    if args.record:
        record("Training strategy", "python -m benchmarks.strategy --record", lines, seed=0)


if __name__ == "__main__":
    main()
