"""`nemo-cmim fit | predict`: property models."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import Commands
from .generated import add_outputs, chosen, print_streamed, stream_options
from .messages import with_options
from .output import list_rows, progress_bar
from .reading import FILES, add_model, add_read_options, add_resume, add_standardise, read_options

if TYPE_CHECKING:
    import pandas as pd

    from ..properties import PropertyModel
    from ..properties.data import PropertyData
    from ..properties.fine_tuning import Recipe
    from ..tables.rejects import RowProblem

__all__ = ["SETTINGS", "add_commands"]

SETTINGS = ("task", "features", "head", "target_transform", "split", "folds", "coverage", "time_limit", "members", "checkpoint")
"""Arguments of `PropertyModel` that are options of the same name."""


def add_commands(commands: Commands) -> None:
    """Adds these commands to the command line."""
    _add_fit(commands)
    _add_predict(commands)


def _add_fit(commands: Commands) -> None:
    parser = commands.add_parser(
        "fit",
        help="fit a model of a measured property, and keep it in a file",
        description="Fits a model that predicts measured properties from SMILES. Measures its errors by cross-validation, chooses a head, "
        "fits on all rows, and writes the model to a file for `nemo-cmim predict`.",
    )
    add = parser.add_argument
    add("input", nargs="?", metavar="FILE", help=f"{FILES}; a URL; or - for standard input")
    folder = (
        "folder with the given split of a BioNeMo task, instead of FILE: fits on train/x*.csv, and reports the metrics of val/x*.csv and "
        "test/x*.csv"
    )
    add("--folder", metavar="FOLDER", help=folder)
    add("-o", "--output", required=True, metavar="MODEL", help="file to write, for example solubility.model")
    add("--overwrite", action="store_true", help="replace output files if they exist")
    target = "column of measured values or class labels; may be given several times. An empty cell is a missing value"
    add("--target", required=True, action="append", metavar="COLUMN", help=target)
    add_read_options(add)
    add_standardise(add)
    invalid = "what to do with invalid rows: raise = stop with an error, drop = leave them out and list them (default: %(default)s)"
    add("--on-invalid", choices=("raise", "drop"), default="raise", help=invalid)
    add("--rejects", metavar="FILE", help="CSV file to write with the place, SMILES and reason of each row that is left out")
    add("--report", metavar="FILE", help="HTML page to write: metrics, plots, and the worst predictions drawn as molecules")
    add("--unit", default="", metavar="TEXT", help="unit of the measured values, which is kept in the model")
    add("--licence", default="", metavar="TEXT", help="licence of the data or the model, which is kept in the model")
    _add_fit_settings(parser.add_argument_group("model").add_argument)
    _add_fine_tuning(parser.add_argument_group("fine-tuning").add_argument)
    parser.set_defaults(run=_run_fit)


def _add_fine_tuning(add: Callable[..., argparse.Action]) -> None:
    scope = (
        "train the network of the embeddings together with a head: all = all layers, last:N = the last N layers, lora:R = low-rank "
        "adapters of rank R (default: the network stays as it is). Takes minutes to hours on a CPU"
    )
    add("--fine-tune", metavar="SCOPE", help=scope)
    add("--members", type=int, default=3, metavar="N", help="number of networks that are averaged (default: %(default)s)")
    add("--checkpoint", metavar="FOLDER", help="folder in which an interrupted fit continues when the command is run again")
    recipe = "setting of fine-tuning, for example epochs=20 or decoder_rate=3e-4; may be given several times"
    add("--recipe", action="append", default=[], metavar="NAME=VALUE", help=recipe)


def _add_fit_settings(add: Callable[..., argparse.Action]) -> None:
    add("--task", choices=("regression", "classification"), default="regression", help="kind of targets (default: %(default)s)")
    features = (
        "features, joined by +; choices: informative, mean (embeddings), informative[1,2] (decoder layers), morgan<bits>, rdkit "
        "(default: %(default)s)"
    )
    add("--features", default="informative", metavar="NAMES", help=features)
    head = (
        "what predicts from the features: ridge (logistic for classification), svm, neighbours, boosting, mlp, gp (Gaussian process), or "
        "auto = the best of them in an inner cross-validation (default: %(default)s)"
    )
    add("--head", default="auto", metavar="NAME", help=head)
    transform = "transform of the targets for the fit; predictions are in the unit of the file (default: none)"
    add("--target-transform", choices=("log10", "log1p", "quantile"), help=transform)
    split = "split of the cross-validation; time: train on earlier rows, test on later ones (default: %(default)s)"
    add("--split", choices=("random", "scaffold", "time"), default="random", help=split)
    add("--time-column", metavar="COLUMN", help="column of numbers or ISO dates for --split time")
    add("--folds", type=int, default=5, metavar="K", help="number of folds (default: %(default)s)")
    coverage = "fraction of true values that prediction intervals and sets are to cover (default: %(default)s)"
    add("--coverage", type=float, default=0.9, metavar="F", help=coverage)
    limit = "time for the choice of the head, seconds (default: %(default)s)"
    add("--time-limit", type=float, default=600.0, metavar="S", help=limit)
    add_model(add)
    add("--processes", type=int, metavar="N", help="number of processes for the folds (default: 1)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the folds and of the heads (default: %(default)s)")


def _run_fit(args: argparse.Namespace) -> None:
    from ..outputs import check_file
    from ..properties import FeatureSet, PropertyModel
    from ..properties.data import PropertyColumns, read_property_data
    from ..properties.folders import TRAIN, check_parts, measure, part_files
    from ..report.property_report import write_property_report

    _check_fit_options(args)
    files = {TRAIN: [args.input]} if args.folder is None else part_files(args.folder)
    inputs = [path for of_part in files.values() for path in of_part] + [one for one in [args.model] if one and Path(one).exists()]
    outputs = [path for path in (args.output, args.rejects, args.report) if path]
    for number, path in enumerate(outputs):
        check_file(path, overwrite=args.overwrite, others=[*inputs, *outputs[:number]])
    model = PropertyModel(
        **{name: getattr(args, name) for name in SETTINGS}, model=args.model, device=args.device, standardise=args.standardise,
        n_jobs=args.processes, random_state=args.seed, verbose=1, fine_tune=_recipe(args),
    )  # fmt: skip
    model.check_arguments()
    read = partial(
        read_property_data,
        columns=PropertyColumns(args.target, args.task, args.time_column, read_options(args), args.target_transform),
        on_invalid=args.on_invalid,
        invalid_reason=FeatureSet(args.features, args.model, args.device).invalid_reason,
        wording=partial(with_options, parser=args.parser),
    )
    parts = {part: read(of_part) for part, of_part in files.items()}
    left_out = [row for data in parts.values() for row in data.left_out]
    _list_left_out(left_out, args)
    training = parts.pop(TRAIN)
    check_parts(training, parts, args.task, args.standardise)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* molecules have rows that contradict each other")  # listed below, by lines
        model.fit(training.smiles, training.targets, groups=training.times)
    _list_contradictions(model, training)
    tested = measure(model, parts) if parts else None
    model.save(args.output, unit=args.unit, licence=args.licence)
    _print_fitted(model, tested, args)
    if args.report:
        write_property_report(model, args.report, places=training.places, left_out=left_out, overwrite=args.overwrite)


def _check_fit_options(args: argparse.Namespace) -> None:
    from ..errors import ConfigError

    if (args.input is None) == (args.folder is None):
        raise ConfigError("Name either FILE or --folder FOLDER.")
    if (args.split == "time") == (args.time_column is None):
        raise ConfigError(
            "--split time needs --time-column."
            if args.split == "time"
            else "--time-column has no effect without --split time. Leave it out."
        )


def _recipe(args: argparse.Namespace) -> Recipe | None:
    """The settings of fine-tuning; values are read as JSON, and as text where they are not JSON."""
    from ..errors import ConfigError
    from ..properties.fine_tuning import Recipe

    if args.fine_tune is None:
        if args.recipe:
            raise ConfigError("--recipe has no effect without --fine-tune. Leave it out.")
        return None
    names = {field.name for field in dataclasses.fields(Recipe)} - {"scope", "kind"}
    values: dict[str, Any] = {}
    for text in args.recipe:
        name, equals, value = text.partition("=")
        if not equals or name not in names:
            raise ConfigError(f"--recipe {text}: write NAME=VALUE with one of the names {', '.join(sorted(names))}.")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    kind = "mean" if args.features == "mean" else "informative"  # `PropertyModel` refuses all other features
    return Recipe(scope=args.fine_tune, kind=kind, **values)


def _list_left_out(left_out: Sequence[RowProblem], args: argparse.Namespace) -> None:
    from ..tables.rejects import Tally, rejects_file

    with rejects_file(args.rejects) as reject:
        reject(left_out)
    tally = Tally()
    tally.add(left_out)
    list_rows(tally.total, tally.examples, "rows are left out")


def _list_contradictions(model: PropertyModel, data: PropertyData) -> None:
    found = model.contradictions_
    examples = [
        f"{row.smiles}, {row.target} from {row.lowest} to {row.highest}: {'; '.join(str(data.places[place]) for place in row.rows)}"
        for row in found.head(3).itertuples()
    ]
    list_rows(len(found), examples, "molecules have rows that contradict each other; all rows are used")


def _print_fitted(model: PropertyModel, tested: pd.DataFrame | None, args: argparse.Namespace) -> None:
    from ..markdown import markdown_table

    card = model.card_
    head = ", ".join([model.chosen_["head"], *(f"{name}={value}" for name, value in model.chosen_["settings"].items())])
    print(f"{args.output}: {card['rows']:,} rows, {card['molecules']:,} molecules; features: {model.features}; head: {head}")
    unit = f"; rmse and mae in {args.unit}" if args.unit and args.task == "regression" else ""
    print(f"Cross-validation ({args.split} split; mean and standard deviation over folds{unit}):\n")
    rows = [
        (row.target, row.metric, f"{row.mean:.4g}", f"{row.sd:.2g}", str(row.folds))
        for row in model.metrics_.itertuples(index=False)
    ]
    print(markdown_table(("target", "metric", "mean", "sd", "folds"), rows))
    if tested is not None:
        print(f"\nThe other parts of {args.folder}:\n")
        cells = [(r.part, r.target, r.metric, f"{r.value:.4g}", f"{r.rows:,}") for r in tested.itertuples()]
        print(markdown_table(("part", "target", "metric", "value", "rows"), cells))


def _add_predict(commands: Commands) -> None:
    about = (
        "Predicts measured properties for each row of a file, with prediction intervals and the distance to the training molecules. All "
        "columns and the order of the rows are kept. Rows are streamed, so memory does not depend on the size of the file."
    )
    parser = commands.add_parser("predict", help="predict measured properties for each row of a file", description=about)
    add = parser.add_argument
    add("property_model", metavar="MODEL", help="file written by `nemo-cmim fit`")
    add("input", metavar="FILE", help=f"{FILES}; a URL; or - for standard input")
    add_outputs(add, smi=False)
    parser.set_defaults(on_invalid="nan")
    add_read_options(add)
    add_resume(add)
    add("--prefix", default="", metavar="TEXT", help="text before the names of the new columns (default: none)")
    embeddings = (
        "model of the embeddings that MODEL was fitted on: name of a shipped model, or path of a .nemo file (default: see MODEL)"
    )
    add("--model", metavar="NAME_OR_PATH", help=embeddings)
    add("--device", help="device of the network, for example cpu or cuda:0 (default: a GPU if there is one, else cpu)")
    parser.set_defaults(run=_run_predict)


def _run_predict(args: argparse.Namespace) -> None:
    from ..properties import load_property_model
    from ..streaming.predict import predict_file

    model = load_property_model(args.property_model, args.model, args.device)
    with progress_bar("predict", "rows") as show:
        done = predict_file(
            model, args.input, args.output, read=read_options(args), options=stream_options(args, show), **chosen(args, ("prefix",)),
            resume=hashlib.sha256(Path(args.property_model).read_bytes()).hexdigest() if args.resume else None,
        )  # fmt: skip
    print_streamed(args.output, done)
