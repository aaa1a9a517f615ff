"""Compares two objectives over training seeds, and variants of the first one.

    python -m tools.objectives tools/objectives.yaml --data DATA --sets FOLDER --jobs 2 -o OUTPUT

The YAML file lists the objectives, the training seeds, the steps, overrides of conf/pretrain.yaml for all runs, and those of each variant.
The runs of one seed are a pair: they see the same molecules in the same order. Variants are trained with the first seed only.

Measures of each model: the scores of `tools.validation`, for the posterior mean and for the informative embedding; log p_k1 at tau = 1 (in
batches of 64); and decoding of held-out molecules, which are in DATA's test split. For each of them table.md has the mean difference, its
standard deviation, the number of pairs, and p of a paired two-sided t-test, also after Holm's correction over all measures. A molecule of a
property set that a model cannot embed gets the mean vector.

Run the command again to resume: finished runs and scores are kept. Writes runs/, scores/, scores.csv and table.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from nemo_cmim.evaluation.blocks import block_path
from nemo_cmim.evaluation.decoding import MEASURES, decoding
from nemo_cmim.evaluation.digest import code_digest, digest_of
from nemo_cmim.evaluation.features import embedding_kinds
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.evaluation.runs import Run, planned, train_all
from nemo_cmim.evaluation.settings import CompareConfig
from nemo_cmim.evaluation.statistics import Contrast, paired_tests
from nemo_cmim.evaluation.tables import comparison_table
from nemo_cmim.files import atomic_write, sha256_of
from nemo_cmim.inference.shipped import load
from nemo_cmim.mappings import check, from_mapping
from nemo_cmim.markdown import markdown_table
from nemo_cmim.signals import sigterm_raises
from tools import validation
from tools.folders import folders_of
from tools.validation import LOWER_IS_BETTER, mean_log_p_k1, property_sets, validation_scores

TAU = 1.0  # of the reported log p_k1, for all models
COLUMNS = ["objective", "seed", "kind", "measure", "value"]  # those of `evaluation.tables.comparison_table`


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The keys of the YAML file.

    Attributes:
        objectives: Two objectives; differences are those of the first minus the second.
        seeds: Training seeds: of weights, noise and order of the molecules.
        steps: Optimiser steps of each run.
        common: Overrides of conf/pretrain.yaml for all runs.
        variants: Further overrides for each variant of the first objective, by its name.
    """

    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    common: tuple[str, ...] = ()
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(len(self.objectives) == 2, f"objectives must be two, found {list(self.objectives)}.")


def runs_of(spec: Spec, args: argparse.Namespace) -> tuple[dict[Run, str], dict[Run, str]]:
    """The runs of all pairs, and those of the variants, each with its name in tables."""
    output: Path = args.output

    def plan(folder: Path, objectives: tuple[str, ...], seeds: tuple[int, ...], overrides: tuple[str, ...]) -> list[Run]:
        train = (*spec.common, *overrides)
        config = CompareConfig(
            data=str(args.data), steps=spec.steps, objectives=objectives, seeds=seeds, output=str(folder), train=train, jobs=args.jobs,
            decoded=args.decoded,
        )  # fmt: skip
        return planned(config)

    pairs = {run: run.objective for run in plan(output, spec.objectives, spec.seeds, ())}
    folders = folders_of(spec.variants)
    variants = {}
    for name, overrides in spec.variants.items():
        variants[plan(output / "runs" / folders[name], spec.objectives[:1], spec.seeds[:1], overrides)[0]] = name
    return pairs, variants


def scored(names: Mapping[Run, str], args: argparse.Namespace, say: Callable[[str], None]) -> pd.DataFrame:
    """Trains what is not trained yet, and scores each run when it is finished: `COLUMNS`, in the order of the runs."""
    tables = {}
    with closing(train_all(list(names), args.jobs)) as training:
        for run, seconds in training:
            tables[run] = measured(names[run], run, args)
            trained = f"trained in {seconds:.0f} s" if seconds else "was trained before"
            say(f"{len(tables)}/{len(names)} {names[run]}, seed {run.seed}: {trained}")
    return pd.concat([tables[run] for run in names], ignore_index=True)


def measured(name: str, run: Run, args: argparse.Namespace) -> pd.DataFrame:
    """The scores of a trained model: `COLUMNS`. They are kept in a file."""
    model = load(run.trained_model(), engine="torch")
    smiles = held_out_molecules(args.data, args.decoded, model.config.network.max_tokens)
    sets = {path.name: sha256_of(path) for path in sorted(args.sets.glob("*.csv"))}
    modules = ("nemo_cmim.evaluation.decoding", "nemo_cmim.evaluation.held_out", "nemo_cmim.losses")
    code = [*map(code_digest, modules), sha256_of(Path(validation.__file__))]
    digest = digest_of(code, sets, smiles, TAU, model.fingerprint("mean"), model.device.type)
    path = block_path(args.output / "scores", f"{name} {run.seed}", digest, ".json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scores = [("", measure, value) for measure, value in decoding(model, smiles).items()]
        for kind in embedding_kinds(model):
            scores += [(kind, measure, value) for measure, value in validation_scores(model, args.sets, kind).items()]
        scores.append(("mean", "log p_k1", mean_log_p_k1(model, smiles, TAU)))
        with atomic_write(path) as staging:
            staging.write_text(json.dumps(scores), encoding="utf-8")
    rows = [(name, run.seed, *score) for score in json.loads(path.read_text(encoding="utf-8"))]
    return pd.DataFrame(rows, columns=COLUMNS)


def differences(scores: pd.DataFrame, objectives: tuple[str, ...]) -> str:
    """A row for each measure: the difference of the objectives over the pairs."""
    first, second = objectives
    runs = scores.rename(columns={"objective": "features", "measure": "data", "kind": "head"})
    rows = []
    for test in paired_tests(runs, [Contrast(first, second)], "value").itertuples():
        is_first = (test.difference < 0) == test.data.endswith(LOWER_IS_BETTER)
        better = "equal" if test.difference == 0 else first if is_first else second
        numbers = [f"{test.difference:+.3g}", number(test.sd), str(test.seeds), number(test.p), number(test.p_holm)]
        rows.append([MEASURES.get(test.data, test.data), test.head, *numbers, better])
    header = [
        "measure",
        "embedding",
        f"{first} - {second}",
        "standard deviation",
        "pairs",
        "p",
        "p after Holm",
        "better on average",
    ]
    return markdown_table(header, rows)


def number(value: float) -> str:
    """A number with two digits; a dash for none."""
    return "-" if np.isnan(value) else f"{value:.2g}"


def report(spec: Spec, pairs: pd.DataFrame, variants: pd.DataFrame | None, decoded: int) -> str:
    """The text of table.md."""
    first, second = spec.objectives
    parts = [
        f"# {first} compared with {second}",
        f"Each run: {spec.steps:,} steps, {' '.join(spec.common)}; training seeds {', '.join(map(str, spec.seeds))}. Property sets: "
        "5-fold cross-validation, RMSE of an SVM and ROC-AUC of logistic regression on standardised vectors; a molecule that a model "
        "cannot embed gets the mean vector. Decoding: at most "
        f"{decoded:,} molecules of the test split, greedy, from the posterior mean; log p_k1 of their posterior means at tau = 1, in nats. "
        "Mean ± standard deviation over training seeds:",
        comparison_table(pairs),
        "Paired differences over training seeds, with p of a two-sided t-test. RMSE is better if lower, all other measures if higher:",
        differences(pairs, spec.objectives),
    ]
    if variants is not None:
        of_seed = pairs[pairs["seed"] == spec.seeds[0]]
        settings = "; ".join(f"{name}: {' '.join(overrides)}" for name, overrides in spec.variants.items())
        parts += [
            f"# Variants of {first}",
            f"One run each, seed {spec.seeds[0]}. A difference below about three standard deviations of {first} over training seeds (first "
            f"table) may be due to the seed. {settings}.",
            comparison_table(pd.concat([of_seed, variants]), objective_header="setting"),
        ]
    return "\n\n".join(parts) + "\n"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("spec", type=Path, metavar="SPEC", help="YAML file, such as tools/objectives.yaml")
    add("--data", type=Path, required=True, metavar="DATA", help="training data: a folder written by `nemo-cmim prepare`")
    add("--sets", type=Path, required=True, metavar="FOLDER", help="property sets, see tools.validation")
    add("--steps", type=int, metavar="N", help="steps of each run (default: those of SPEC)")
    add("--seeds", type=int, metavar="N", help="number of training seeds, 0 to N - 1 (default: those of SPEC)")
    add("--train", nargs="+", default=[], metavar="OVERRIDE", help="further overrides for all runs")
    add("--no-variants", action="store_true", help="leave out the variants")
    add("--decoded", type=int, default=1000, metavar="N", help="number of molecules to decode (default: %(default)s)")
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="number of runs at the same time; they share the cores (default: %(default)s)",
    )
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="output folder")
    return parser


def read_spec(args: argparse.Namespace) -> Spec:
    """The settings of the YAML file, with those of the command line in their place."""
    spec = from_mapping(Spec, yaml.safe_load(args.spec.read_text(encoding="utf-8")) or {})
    return replace(
        spec,
        steps=spec.steps if args.steps is None else args.steps,
        seeds=spec.seeds if args.seeds is None else tuple(range(args.seeds)),
        common=(*spec.common, *args.train),
        variants={} if args.no_variants else spec.variants,
    )


def check_scored(args: argparse.Namespace) -> None:
    """Raises a `DataError` if something cannot be scored, before hours of training."""
    property_sets(args.sets)
    held_out_molecules(args.data, 1, sys.maxsize)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, scores, writes the files, and prints the tables."""
    args = arguments().parse_args(argv)
    say = partial(print, file=sys.stderr, flush=True)
    spec = read_spec(args)
    pairs, variants = runs_of(spec, args)
    check_scored(args)
    scores = [scored(pairs, args, say)]
    write(args.output, report(spec, scores[0], None, args.decoded), scores)  # before the variants, which take as long
    if variants:
        scores.append(scored(variants, args, say))
        write(args.output, report(spec, scores[0], scores[1], args.decoded), scores)
    print((args.output / "table.md").read_text(encoding="utf-8"), end="")


def write(output: Path, text: str, scores: list[pd.DataFrame]) -> None:
    """Writes scores.csv and table.md."""
    with atomic_write(output / "scores.csv") as staging:
        pd.concat(scores).to_csv(staging, index=False)
    with atomic_write(output / "table.md") as staging:
        staging.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        with sigterm_raises():
            main()
    except ValueError as error:
        sys.exit(f"objectives.py: {error}")
