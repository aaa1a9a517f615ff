"""The paper's Table 1 at the scale of your models: property prediction from embeddings, beside random weights and fingerprints.

    python examples/table1.py --data FOLDER --models cmim_small mim_small --pretraining DATA --held-out DATA -o table1

Rows: the mean and the informative embedding of each model, and of the first cMIM also the states of all decoder layers side by
side; the same of a network of the first cMIM's shape with random weights, redrawn for each seed; Morgan fingerprints of 512 and
2,048 bits; RDKit's 2D descriptors. Columns: ESOL, FreeSolv and Lipophilicity, each with support vectors and with an MLP; RMSE in
native units. FOLDER holds MoleculeNet's files (`evaluation.SETS` tells their names and columns).

A seed is a repetition of the split and of the head's own randomness; each model is one training run. Mean ± standard deviation, and
paired t-tests, are over these seeds, and so say nothing of another training run or of other molecules.

`--pretraining` counts the molecules that the models may have seen, and adds tables without them: training rows and predictions stay, the
error is taken over the other test rows. `--held-out` has each model write molecules of a test split from their posterior means, those
aside that it was trained on.
Stopped at any time, the same command goes on. Writes table1.md, table1.png, table1.csv (the error of each run), tests.csv, seen.csv,
decoding.csv, dropped.csv and predictions.parquet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from evaluation import Protocol, Reading, Row, decode_all, load_sets, measure_all, rmse, run_script
from table1_leaks import find_seen, seen_table, unseen
from table1_report import Contrast, draw, paired_tests, shares_table, table, tests_table

from nemo_cmim import load
from nemo_cmim.comparison.measure import embeddings
from nemo_cmim.downstream import RegressionData
from nemo_cmim.errors import ConfigError
from nemo_cmim.inference import CMIMModel

RANDOM = "random weights"
ALL_LAYERS = "informative, all layers"
BUILTIN = {"morgan512": "Morgan, 512 bits", "morgan2048": "Morgan, 2048 bits", "rdkit": "RDKit 2D descriptors"}
SPLITS = {
    "random": "Random split: {folds}-fold cross-validation",
    "scaffold": "Scaffold split: 20 % of the rows tested, no Bemis-Murcko scaffold on both sides",
}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FOLDER", help="MoleculeNet's files of ESOL, FreeSolv and Lipophilicity")
    names = "shipped models or .nemo files, also as LABEL=FILE (default: %(default)s)"
    add("--models", nargs="+", default=["cmim_small", "mim_small"], metavar="MODEL", help=names)
    add("--pretraining", type=Path, metavar="DATA", help="what the models were trained on: a folder that prepare wrote")
    add("--held-out", type=Path, metavar="DATA", help="such a folder, whose test split is reconstructed")
    add("--decoded", type=int, default=1000, metavar="N", help="molecules of it (default: %(default)s)")
    add("--seeds", type=int, default=5, metavar="N", help="repetitions, with seeds 0 to N - 1 (default: %(default)s)")
    add("--folds", type=int, default=5, metavar="K", help="folds of the random split (default: %(default)s)")
    add("--mlp-steps", type=int, default=2000, metavar="N", help="training steps of the MLP (default: %(default)s)")
    add("--jobs", type=int, default=1, metavar="N", help="blocks that are measured at a time (default: %(default)s)")
    add("-o", "--output", type=Path, default=Path("table1"), metavar="FOLDER", help="where to write (default: %(default)s)")
    return parser


def load_models(names: Sequence[str]) -> dict[str, tuple[str, CMIMModel]]:
    """For the label of each model its name or path, and the model.

    Raises:
        ConfigError: Two models of one label, or one called as the rows of random weights are.
    """
    models: dict[str, tuple[str, CMIMModel]] = {}
    for name in names:
        label, _, path = name.rpartition("=")
        label = label or Path(path).stem
        if label == RANDOM:
            raise ConfigError(f"A row of the table is called {RANDOM!r} already: give {path} another label.")
        if label in models:
            raise ConfigError(f"Two models are called {label!r}: give them labels, as in --models a={path} b=...")
        models[label] = (path, load(path))
    return models


def label_of(models: Mapping[str, tuple[str, CMIMModel]], objective: str) -> str | None:
    """The first model of an objective."""
    return next((label for label, (_, model) in models.items() if model.config.objective.name == objective), None)


def rows_of(models: Mapping[str, tuple[str, CMIMModel]]) -> list[Row]:
    """The rows of the table."""
    shaped = label_of(models, "cmim") or next(iter(models))
    rows = []
    for label, (path, model) in {**models, RANDOM: models[shaped]}.items():
        readings = {kind: Reading(kind) for kind in embeddings(model)}
        layers = model.config.network.decoder_layers
        if layers > 1 and label in (shaped, RANDOM):
            readings[ALL_LAYERS] = Reading(layers=tuple(range(1, layers + 1)))
        rows += [Row(f"{label}, {name}", model=path, readings=(one,), is_redrawn=label == RANDOM) for name, one in readings.items()]
    return rows + [Row(name, builtin=builtin) for builtin, name in BUILTIN.items()]


def contrasts_of(models: Mapping[str, tuple[str, CMIMModel]], rows: Sequence[Row]) -> list[Contrast]:
    """What is tested: cMIM against random weights, against MIM and against all that needs no model; informative against mean."""
    cmim, mim = label_of(models, "cmim") or next(iter(models)), label_of(models, "mim")
    pairs = [(f"{cmim}, {reading}", f"{RANDOM}, {reading}") for reading in ("mean", "informative", ALL_LAYERS)]
    if mim is not None and mim != cmim:
        pairs += [(f"{cmim}, {kind}", f"{mim}, {kind}") for kind in ("informative", "mean")]
    pairs += [(f"{label}, informative", f"{label}, mean") for label in models]
    pairs += [(f"{cmim}, {reading}", name) for reading in ("informative", ALL_LAYERS) for name in BUILTIN.values()]
    known = {row.name for row in rows}
    return [Contrast(*pair) for pair in pairs if known.issuperset(pair)]


def report(runs: pd.DataFrame, tests: pd.DataFrame, protocol: Protocol) -> list[str]:
    """The Markdown sections of the two splits."""
    sections = []
    for split in protocol.splits:
        of_split, tested = runs[runs["split"] == split], tests[(tests["split"] == split) & (tests["rows"] == "all")]
        sections += [f"## {SPLITS[split].format(folds=protocol.folds)}", table(of_split[of_split["rows"] == "all"])]
        if (of_split["rows"] == "unseen").any():
            sections += ["Without test rows that are in the pretraining data:", table(of_split[of_split["rows"] == "unseen"])]
        sections += ["Paired differences over seeds, all rows:", tests_table(tested)]
    return sections


def protocol_in_words(sets: Sequence[RegressionData], protocol: Protocol, models: Mapping[str, tuple[str, CMIMModel]]) -> str:
    """What the numbers are."""
    parts = []
    for one in sets:
        dropped = f", {len(one.dropped)} left out in all rows of the table" if one.dropped else ""
        parts.append(f"{one.name} ({len(one)} rows{dropped}; {one.unit})")
    named = [
        f"{label} ({model.config.objective.name}, {sum(p.numel() for p in model.network.parameters()) / 1e6:.2f} M parameters)"
        for label, (_, model) in models.items()
    ]
    return (
        f"RMSE, lower is better, mean ± standard deviation over {len(protocol.seeds)} seeds of split and head (one training run of each "
        f"model): {', '.join(parts)}. SVM: scikit-learn's SVR with its defaults; MLP: 128 hidden units, {protocol.mlp_steps:,} steps; "
        f'features standardised except fingerprints. Models: {", ".join(named)}. "{RANDOM}": the same network, drawn anew for each '
        "seed. Differences: paired two-sided t-test over seeds, bold where p < 0.05 after Holm's correction over the columns."
    )


def main() -> None:
    """Measures, writes, and prints the tables."""
    args = arguments().parse_args()
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, found {args.seeds}.")
    say = partial(print, file=sys.stderr, flush=True)
    models = load_models(args.models)

    def invalid_reason(smiles: str) -> str | None:
        return next((reason for _, model in models.values() if (reason := model.invalid_reason(smiles))), None)

    sets = load_sets(args.data, invalid_reason)
    protocol = Protocol(seeds=tuple(range(args.seeds)), folds=args.folds, mlp_steps=args.mlp_steps)
    rows, output = rows_of(models), args.output
    loaded = dict(models.values())
    predictions = measure_all(rows, sets, protocol, output / "blocks", loaded, jobs=args.jobs, say=say)
    runs, sections = rmse(predictions).assign(rows="all"), []
    files: dict[str, pd.DataFrame] = {}
    if args.pretraining:
        seen = find_seen(sets, args.pretraining, output / "blocks", say)
        runs = pd.concat([runs, rmse(unseen(predictions, seen)).assign(rows="unseen")], ignore_index=True)
        files["seen"] = seen
        sections += ["## Molecules that are in the pretraining data", seen_table(seen)]
    tests = pd.concat(
        [
            paired_tests(some, contrasts_of(models, rows)).assign(split=split, rows=which)
            for (split, which), some in runs.groupby(["split", "rows"], sort=False)
        ],
        ignore_index=True,
    )
    sections = [protocol_in_words(sets, protocol, models), *report(runs, tests, protocol), *sections]
    if args.held_out:
        of_label = {label: model for label, (_, model) in models.items()}
        decoded = decode_all(of_label, args.held_out, args.decoded, output / "blocks" / "decoding.json", args.pretraining)
        files["decoding"] = decoded
        sections += ["## Molecules of the held-out test split, decoded greedily from the posterior mean", shares_table(decoded)]
    dropped = [pd.DataFrame(one.dropped).assign(data=one.name) for one in sets if one.dropped]
    files |= {"table1": runs, "tests": tests, **({"dropped": pd.concat(dropped)} if dropped else {})}
    for name in ("table1", "tests", "seen", "decoding", "dropped"):
        path = output / f"{name}.csv"
        if name in files:
            files[name].to_csv(path, index=False)
        else:
            path.unlink(missing_ok=True)  # of an earlier call
    predictions.to_parquet(output / "predictions.parquet", index=False)
    draw(runs[runs["rows"] == "all"], output / "table1.png")
    text = "\n\n".join(["# Table 1", *sections]) + "\n"
    (output / "table1.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_script(main)
