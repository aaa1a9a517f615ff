"""What matters for cMIM's embeddings: small runs of the same budget that differ in one setting each, and ways to read one of them.

    python examples/ablations.py --pretraining DATA --data FOLDER -o ablations

Trains a tiny cMIM (conf/model/tiny.yaml; batches of 64) for each temperature tau, number of latents K and width (of the whole
network), and once with two spellings of each molecule in place of the canonical one, by `nemo-cmim train` in processes of their
own. Of the run with all settings at their base (tau 1, K 1, width 128) it also compares, without training again, how decoder
states are pooled (mean over positions, the last position, mean beside the latent) and which decoder layer is read. Each gets the
RMSE of SVM and MLP on ESOL, FreeSolv and Lipophilicity (random 5-fold; FOLDER as for table1.py), each run its token accuracy.

What was trained or measured before is kept, so the same command goes on where it was stopped. Writes table.md and measured.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from evaluation import Protocol, Reading, Row, decode_all, load_sets, measure_all, rmse, run_script

from nemo_cmim import load
from nemo_cmim.comparison import CompareConfig, planned
from nemo_cmim.comparison.report import DECODING, markdown
from nemo_cmim.comparison.runs import Run, train_all

BASE = "base: tau 1, K 1, width 128"
SETTINGS: dict[str, tuple[str, ...]] = {
    BASE: (),
    **{f"tau {tau}": (f"model.objective.tau={tau}",) for tau in (0.03, 0.1, 0.3)},
    **{f"K {latents}": (f"model.network.latents={latents}",) for latents in (2, 4)},
    "two spellings": ("model.augmentation.enumerate_smiles=true",),
    **{f"width {width}": (f"model.network.hidden_size={width}", f"model.network.ffn_size={4 * width}") for width in (64, 256)},
}
"""Overrides of conf/pretrain.yaml for each run."""

COMMON = (
    "model=tiny",
    "model.train_ds.batch_size=64",
    "model.train_ds.workers=1",
    "model.validation_ds.workers=0",
    "model.validation_ds.limit=512",
    "model.validation.reconstruct=0",
    "model.optim.lr=1e-3",
    "model.optim.sched.warmup_ratio=0.05",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.num_sanity_val_steps=0",
    "exp_manager.checkpoint_callback_params.save_top_k=1",
)
"""Those of all runs: as conf/demo.yaml."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pretraining", type=Path, required=True, metavar="DATA", help="what to train on: a folder that prepare wrote")
    add("--data", type=Path, required=True, metavar="FOLDER", help="MoleculeNet's files of ESOL, FreeSolv and Lipophilicity")
    add("--steps", type=int, default=800, metavar="N", help="optimiser steps of each run (default: %(default)s)")
    add("--training-seeds", type=int, default=1, metavar="N", help="runs of each setting (default: %(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="repetitions of split and head for each run (default: %(default)s)")
    add("--mlp-steps", type=int, default=1000, metavar="N", help="training steps of the MLP (default: %(default)s)")
    add("--decoded", type=int, default=200, metavar="N", help="molecules of the test split to decode (default: %(default)s)")
    add("--jobs", type=int, default=1, metavar="N", help="runs and blocks at a time; they share the cores (default: %(default)s)")
    add("-o", "--output", type=Path, default=Path("ablations"), metavar="FOLDER", help="where to write (default: %(default)s)")
    return parser


def plan(args: argparse.Namespace) -> dict[str, list[Run]]:
    """The runs of each setting, one for each training seed."""
    planned_of = {}
    for name, overrides in SETTINGS.items():
        config = CompareConfig(
            data=str(args.pretraining),
            steps=args.steps,
            objectives=("cmim",),
            seeds=tuple(range(args.training_seeds)),
            output=str(args.output / "runs" / name.split(":")[0].replace(" ", "-")),
            train=(*COMMON, f"trainer.val_check_interval={max(1, args.steps // 2)}", *overrides),
        )
        planned_of[name] = planned(config)
    return planned_of


def readings(decoder_layers: int, is_base: bool) -> dict[str, tuple[Reading, ...]]:
    """Ways to read a run, by what tables call them: vectors that stand side by side."""
    mean, informative = Reading("mean"), Reading()
    found: dict[str, tuple[Reading, ...]] = {"mean": (mean,), "informative": (informative,)}
    if is_base:
        found["last position"] = (Reading(pooling="last"),)
        found["informative and mean"] = (informative, mean)
        found |= {f"layer {layer} of {decoder_layers}": (Reading(layers=(layer,)),) for layer in range(1, decoder_layers)}
        found["all layers"] = (Reading(layers=tuple(range(1, decoder_layers + 1))),)
    return found


def measure_runs(runs_of: dict[str, list[Run]], args: argparse.Namespace, say: Any) -> pd.DataFrame:
    """Rows `objective, seed, kind, measure, value` as `comparison.report` takes them, with settings in place of objectives."""
    files = {(name, run.seed): str(run.nemo_file()) for name, runs in runs_of.items() for run in runs}
    models = {path: load(path) for path in files.values()}
    rows: dict[tuple[str, int, str], Row] = {}
    for (name, seed), path in files.items():
        for reading, read in readings(models[path].config.network.decoder_layers, name == BASE).items():
            rows[name, seed, reading] = Row(f"{name}, run {seed}, {reading}", model=path, readings=read)
    sets = load_sets(args.data, next(iter(models.values())).invalid_reason)
    protocol = Protocol(seeds=tuple(range(args.seeds)), splits=("random",), mlp_steps=args.mlp_steps)
    kept = args.output / "blocks"
    predictions = measure_all(list(rows.values()), sets, protocol, kept, models, jobs=args.jobs, say=say)
    errors = rmse(predictions).groupby(["features", "data", "head"], sort=False)["rmse"].mean()
    measured = []
    for (name, seed, reading), row in rows.items():
        for (data, head), value in errors[row.name].items():
            measured.append({"objective": name, "seed": seed, "kind": reading, "measure": f"{data} {head}", "value": value})
    decoded = decode_all(models, args.pretraining, args.decoded, kept / "decoding.json").set_index("model")
    for (name, seed), path in files.items():
        for share in DECODING:
            measured.append({"objective": name, "seed": seed, "kind": "", "measure": share, "value": decoded.loc[path, share]})
    return pd.DataFrame(measured)


def parameters(runs_of: dict[str, list[Run]]) -> dict[str, int]:
    """Of the network of each setting, which is that of all its runs."""
    networks = {name: load(str(runs[0].nemo_file())).network for name, runs in runs_of.items()}
    return {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}


def in_words(args: argparse.Namespace, parameters_of: dict[str, int]) -> str:
    """What the numbers are."""
    sizes = ", ".join(f"{name.partition(':')[0]} {count:,}" for name, count in parameters_of.items())
    spread = f"mean ± standard deviation over {args.training_seeds} runs" if args.training_seeds > 1 else "one run of each setting"
    return (
        f"Each run: cMIM, {args.steps:,} steps of 64 molecules, differs from the base in the setting that is named; {spread}. RMSE in "
        f"native units, lower is better: random 5-fold cross-validation, mean over {args.seeds} seeds of split and head, MLP of "
        f"{args.mlp_steps:,} steps. Token accuracy, reconstruction and validity: {args.decoded} molecules of the test split, from the "
        "posterior mean. Width is that of the whole network, and so of the latent too (feed-forward layers: 4 times as wide). "
        f"Parameters: {sizes}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, measures, writes, and prints the table."""
    args = arguments().parse_args(argv)
    say = partial(print, file=sys.stderr, flush=True)
    runs_of = plan(args)
    runs = [run for of_setting in runs_of.values() for run in of_setting]
    with closing(train_all(runs, args.jobs)) as training:
        for done, (run, seconds) in enumerate(training, 1):
            what = f"trained in {seconds:.0f} s" if seconds else "was trained before"
            say(f"{done}/{len(runs)} {run.folder.parents[1].name}, run {run.seed}: {what}")
    measured = measure_runs(runs_of, args, say)
    measured.to_csv(args.output / "measured.csv", index=False)
    text = f"{in_words(args, parameters(runs_of))}\n\n{markdown(measured, objective_header='setting')}\n"
    (args.output / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_script(main)
