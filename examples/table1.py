"""The paper's Table 1 for your models: property prediction from embeddings, compared with random weights, fingerprints and MiniMol.

    python examples/table1.py --data FOLDER --models MODEL... --pretraining DATA --minimol ENVIRONMENT -o table1
    python examples/table1.py --sets FOLDER --log10 clearance --minimol ENVIRONMENT -o other_sets

Rows: the posterior mean and the informative embedding of each model, and for the first cMIM also the states of all decoder layers,
concatenated; the same embeddings of the first cMIM's network with random weights, drawn again for each seed; Morgan fingerprints of 512
and 2,048 bits; RDKit's 2D descriptors; with `--minimol`, the pretrained model MiniMol, which is installed in an environment of its own
(several GB). Columns: each data set with SVM and MLP; RMSE in native units, under random folds and under a scaffold split.

`--data`: ESOL, FreeSolv and Lipophilicity, in MoleculeNet's files; for their names and columns see `nemo_cmim.downstream.moleculenet.SETS`.
The numbers that the paper prints for them are added, in a table of their own. `--sets`: the same table for the CSV files of a folder that
have a column `target`. Sets of classes are not measured here, but by `python -m benchmarks.properties`. A molecule that one of the models,
or MiniMol, cannot embed is left out for all rows, and counted.

A seed is a repetition of the split and of the head's random numbers; each model is one training run. Mean ± standard deviation and paired
t-tests are over these seeds, so they say nothing about other training runs or other molecules. The recipe of the default model was chosen
on other sets than the three of Table 1. On the sets that it was chosen on, its numbers are optimistic.

`--pretraining` counts the test molecules that are in the pretraining data, and adds tables without them: training rows and predictions
stay the same, and the error is computed on the other test rows. `--held-out` decodes molecules of a test split from their posterior means,
except those in the pretraining data. Run the command again to resume an interrupted evaluation. Writes table1.md, table1.png, table1.csv
(the error of each run), tests.csv, seen.csv, decoding.csv, dropped.csv and predictions.parquet.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import pandas as pd
from script import run_script
from table1_models import contrasts_of, feature_sets, load_models
from table1_published import published_section
from table1_report import draw, protocol_in_words, sections_of
from table1_sets import first_of, load_sets, minimol_row, molecules_of, notes_of

from nemo_cmim.errors import ConfigError
from nemo_cmim.evaluation.blocks import measure_all
from nemo_cmim.evaluation.decoding import decode_all
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.evaluation.leakage import find_seen, unseen
from nemo_cmim.evaluation.measure import Protocol, rmse_of_runs
from nemo_cmim.evaluation.statistics import paired_tests
from nemo_cmim.evaluation.tables import decoding_table, seen_table


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="folder of MoleculeNet's ESOL, FreeSolv and Lipophilicity")
    source.add_argument("--sets", type=Path, metavar="FOLDER", help="folder of CSV files with the columns smiles and target")
    add("--log10", nargs="+", default=[], metavar="SET", help="sets whose logarithm is predicted too: names without .csv")
    names = "shipped models or .nemo files, optionally as LABEL=FILE (default: %(default)s)"
    add("--models", nargs="+", default=["cmim_small_v3", "cmim_eq9_small_v3", "mim_small_v3"], metavar="MODEL", help=names)
    add("--minimol", type=Path, metavar="FOLDER", help="also measure MiniMol; folder of its environment, made if it is missing")
    add("--pretraining", type=Path, metavar="DATA", help="pretraining data: a folder written by nemo-cmim prepare")
    add("--held-out", type=Path, metavar="DATA", help="prepared folder whose test split is decoded")
    add("--decoded", type=int, default=1000, metavar="N", help="number of molecules to decode (default: %(default)s)")
    add("--seeds", type=int, default=5, metavar="N", help="number of repetitions, with seeds 0 to N - 1 (default: %(default)s)")
    add("--folds", type=int, default=5, metavar="K", help="folds of the random split (default: %(default)s)")
    add("--mlp-steps", type=int, default=10_000, metavar="N", help="training steps of the MLP (default: the paper's %(default)s)")
    add("--jobs", type=int, default=1, metavar="N", help="number of blocks measured at the same time (default: %(default)s)")
    add("-o", "--output", type=Path, default=Path("table1"), metavar="FOLDER", help="output folder (default: %(default)s)")
    return parser


def main() -> None:
    """Measures, writes the files, and prints the tables."""
    args = arguments().parse_args()
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, found {args.seeds}.")
    say = partial(print, file=sys.stderr, flush=True)
    paths, models = load_models(args.models)
    features, output = feature_sets(paths, models), args.output
    kept = output / "blocks"
    reasons = [model.invalid_reason for model in models.values()]
    if args.minimol:
        row, reason = minimol_row(molecules_of(args, first_of(reasons)), args.minimol, kept, say)
        features, reasons = [*features, row], [*reasons, reason]
    sets = load_sets(args, first_of(reasons))
    protocol = Protocol(seeds=tuple(range(args.seeds)), folds=args.folds, mlp_steps=args.mlp_steps)
    predictions = measure_all(features, sets, protocol, kept, jobs=args.jobs, say=say)
    runs, more = rmse_of_runs(predictions).assign(rows="all"), []
    files: dict[str, pd.DataFrame] = {}
    if args.pretraining:
        seen = files["seen"] = find_seen(sets, args.pretraining, kept, say)
        runs = pd.concat([runs, rmse_of_runs(unseen(predictions, seen)).assign(rows="unseen")], ignore_index=True)
        more += ["## Molecules that are in the pretraining data", seen_table(seen)]
    groups = runs.groupby(["split", "rows"], sort=False)
    contrasts = contrasts_of(models, features)
    tests = pd.concat([paired_tests(some, contrasts).assign(split=split, rows=rows) for (split, rows), some in groups])
    if args.held_out:
        max_tokens = min(model.config.network.max_tokens for model in models.values())
        smiles = held_out_molecules(args.held_out, args.decoded, max_tokens, args.pretraining)
        decoded = files["decoding"] = decode_all(paths, smiles, kept)
        more += ["## Molecules of the held-out test split, decoded greedily from the posterior mean", decoding_table(decoded)]
    more += published_section() if args.data else []
    dropped = [pd.DataFrame(one.dropped).assign(data=one.name) for one in sets if one.dropped]
    files |= {"table1": runs, "tests": tests, **({"dropped": pd.concat(dropped)} if dropped else {})}
    for name in ("table1", "tests", "seen", "decoding", "dropped"):
        (output / f"{name}.csv").unlink(missing_ok=True)  # of an earlier call
        if name in files:
            files[name].to_csv(output / f"{name}.csv", index=False)
    predictions.to_parquet(output / "predictions.parquet", index=False)
    draw(runs[runs["rows"] == "all"], output / "table1.png")
    title = "# Table 1" if args.data else "# Other data sets, with the protocol of Table 1"
    words = protocol_in_words(sets, protocol, models, notes_of(args))
    parts = [title, words, *sections_of(runs, tests, protocol), *more]
    (output / "table1.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    run_script(main)
