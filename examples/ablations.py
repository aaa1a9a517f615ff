"""Ablations of cMIM: small runs that differ in one setting each, and different embeddings of one of them.

    python examples/ablations.py --pretraining DATA --data FOLDER -o ablations

Trains a tiny cMIM (conf/model/tiny.yaml; batches of 64) for each temperature tau, number of latents K and width (of the whole network),
and once with two randomized SMILES of each molecule in place of the canonical one, by `nemo-cmim train` in separate processes. For the
base run (tau 1, K 1, width 128) it also compares, without further training, how decoder states are pooled (mean over positions, last
position, mean concatenated with the latent) and which decoder layer is used. Measures the RMSE of SVM and MLP on ESOL, FreeSolv and
Lipophilicity (random 5-fold; FOLDER as for table1.py) for each embedding, and how well each run decodes.

Run the command again to resume: finished runs and measurements are kept. Writes table.md and measured.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from ablation_settings import BASE, COMMON, SETTINGS, embeddings_of
from script import run_script

from nemo_cmim import load
from nemo_cmim.downstream import load_moleculenet
from nemo_cmim.evaluation.entries import Entry, measure_entries
from nemo_cmim.evaluation.features import FeatureSet
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.evaluation.measure import Protocol
from nemo_cmim.evaluation.runs import Run, planned, train_all
from nemo_cmim.evaluation.settings import CompareConfig
from nemo_cmim.evaluation.tables import comparison_table
from nemo_cmim.inference import CMIMModel


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pretraining", type=Path, required=True, metavar="DATA", help="training data: a folder written by nemo-cmim prepare")
    add("--data", type=Path, required=True, metavar="FOLDER", help="folder of MoleculeNet's ESOL, FreeSolv and Lipophilicity")
    add("--steps", type=int, default=800, metavar="N", help="optimiser steps of each run (default: %(default)s)")
    add("--training-seeds", type=int, default=1, metavar="N", help="number of runs of each setting (default: %(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="repetitions of split and head for each run (default: %(default)s)")
    add("--mlp-steps", type=int, default=1000, metavar="N", help="training steps of the MLP (default: %(default)s)")
    add("--decoded", type=int, default=200, metavar="N", help="molecules of the test split to decode (default: %(default)s)")
    jobs = "number of runs and blocks at the same time; they share the cores (default: %(default)s)"
    add("--jobs", type=int, default=1, metavar="N", help=jobs)
    add("-o", "--output", type=Path, default=Path("ablations"), metavar="FOLDER", help="output folder (default: %(default)s)")
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


def entry_of(name: str, run: Run) -> Entry:
    """The embeddings of a run that are measured."""
    path = str(run.trained_model())
    embeddings = embeddings_of(load(path).config.network.decoder_layers, name == BASE)
    features = {kind: FeatureSet(f"{name}, run {run.seed}, {kind}", model=path, embeddings=e) for kind, e in embeddings.items()}
    return Entry(name, run.seed, features, decoded=path)


def in_words(args: argparse.Namespace, models: dict[str, CMIMModel]) -> str:
    """How the numbers were measured."""
    counts = {name.partition(":")[0]: sum(p.numel() for p in model.network.parameters()) for name, model in models.items()}
    runs = f"mean ± standard deviation over {args.training_seeds} runs" if args.training_seeds > 1 else "one run of each setting"
    return (
        f"Each run: cMIM, {args.steps:,} steps of 64 molecules, differs from the base in the named setting; {runs}. RMSE in native "
        f"units, lower is better: random 5-fold cross-validation, mean over {args.seeds} seeds of split and head, MLP of "
        f"{args.mlp_steps:,} steps. Token accuracy, reconstruction and validity: {args.decoded} molecules of the test split, from the "
        "posterior mean. Width is that of the whole network, and so of the latent too (feed-forward layers: 4 times as wide). "
        f"Parameters: {', '.join(f'{name} {count:,}' for name, count in counts.items())}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, measures, writes the files, and prints the table."""
    args = arguments().parse_args(argv)
    say = partial(print, file=sys.stderr, flush=True)
    runs_of = plan(args)
    runs = [run for of_setting in runs_of.values() for run in of_setting]
    with closing(train_all(runs, args.jobs)) as training:
        for done, (run, seconds) in enumerate(training, 1):
            what = f"trained in {seconds:.0f} s" if seconds else "was trained before"
            say(f"{done}/{len(runs)} {run.folder.parents[1].name}, run {run.seed}: {what}")
    models = {name: load(runs[0].trained_model()) for name, runs in runs_of.items()}
    sets = load_moleculenet(args.data, models[BASE].invalid_reason)
    smiles = held_out_molecules(args.pretraining, args.decoded, min(m.config.network.max_tokens for m in models.values()))
    protocol = Protocol(seeds=tuple(range(args.seeds)), splits=("random",), mlp_steps=args.mlp_steps)
    entries = [entry_of(name, run) for name, runs in runs_of.items() for run in runs]
    measured = measure_entries(entries, sets, protocol, smiles, args.output / "blocks", jobs=args.jobs, say=say)
    measured.to_csv(args.output / "measured.csv", index=False)
    text = f"{in_words(args, models)}\n\n{comparison_table(measured, objective_header='setting')}\n"
    (args.output / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_script(main)
