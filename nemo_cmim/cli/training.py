"""`nemo-cmim train | export | plan | compare | systems`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from .commands import Commands

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds these commands to the command line."""
    _add_train(commands)
    _add_export(commands)
    _add_plan(commands)
    _add_compare(commands)
    _add_systems(commands)


def _add_train(commands: Commands) -> None:
    about = "Trains a model and prints the folder of the run. The settings are in conf/pretrain.yaml."
    parser = commands.add_parser("train", help="train a model (requires the [train] extra)", description=about)
    overrides = "Hydra overrides of the settings, such as model=tiny trainer.max_steps=100"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    parser.add_argument("--config-name", default="pretrain", metavar="NAME", help="name of a file in conf/ (default: %(default)s)")
    parser.set_defaults(run=_run_train)


def _run_train(args: argparse.Namespace) -> None:
    run = _training("run")
    try:
        print(f"Run folder: {run.train(run.compose(args.overrides, args.config_name))}")
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning exits with status 1 after SIGINT
            raise KeyboardInterrupt from error
        raise


def _add_export(commands: Commands) -> None:
    about = (
        "Converts a training checkpoint, written at any parallel sizes, to a .nemo file, which nemo_cmim.load reads. Also converts "
        "a .nemo file without checksums, which an older version of nemo_cmim wrote, to the current format."
    )
    short = "convert a checkpoint (requires [train]) or an older model file to a .nemo file"
    parser = commands.add_parser("export", help=short, description=about)
    checkpoint = "checkpoint folder step=*.ckpt; folder of a run, whose newest valid checkpoint is exported; or model file"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=checkpoint)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=".nemo file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    from ..inference.model_file import is_model_file, read_model_file, write_model_file
    from ..outputs import check_file

    files_of_run = [path for path in Path(args.checkpoint).rglob("*") if path.is_file() and path.suffix != ".nemo"]
    check_file(args.output, overwrite=args.overwrite, others=files_of_run or [args.checkpoint])
    if is_model_file(args.checkpoint):
        write_model_file(args.output, read_model_file(args.checkpoint))
        print(f"{args.output}: converted {args.checkpoint}")
        return
    print(f"{args.output}: exported {_training('checkpoints.export').export_from(args.checkpoint, args.output)}")


def _add_systems(commands: Commands) -> None:
    about = "Lists the baseline models of the paper with their numbers of parameters and those that the paper states."
    parser = commands.add_parser("systems", help="list the baseline models of the paper (requires [train])", description=about)
    parser.set_defaults(run=_run_systems)


def _run_systems(args: argparse.Namespace) -> None:
    print(_training("systems").describe_systems())


def _training(module: str) -> Any:
    """Imports a module of `nemo_cmim.training`."""
    from ..errors import ConfigError

    try:
        return importlib.import_module(f"nemo_cmim.training.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"Training requires {error.name}, which is not installed. Run pip install 'nemo_cmim[train]'.") from error


def _add_plan(commands: Commands) -> None:
    from ..scaling import Plan

    about = "Predicts step time, memory and communication of a training run with the model of docs/scaling.md. Needs no GPU and no data."
    parser = commands.add_parser("plan", help="predict step time, memory and communication of a training run", description=about)
    add = parser.add_argument
    add("--machine", default="h100", help="GPU type or CPU: v100 (DGX-2) | h100 (DGX H100) | cpu (default: %(default)s)")
    nodes = f"number of nodes; several numbers print one row each (default: {Plan.nodes})"
    add("--nodes", type=int, nargs="+", default=[Plan.nodes], metavar="N", help=nodes)
    add("--devices", type=int, default=Plan.devices, metavar="N", help="devices in use on each node (default: all)")
    tensor_parallel = "tensor-parallel size (default: %(default)s)"
    add("--tensor-parallel", type=int, default=Plan.tensor_parallel, metavar="N", help=tensor_parallel)
    micro_batch = "micro-batch size of a rank, in molecules (default: global batch size / data-parallel ranks)"
    add("--micro-batch", type=int, metavar="N", help=micro_batch)
    global_batch = "global batch size, in molecules (default: micro-batch size x data-parallel ranks)"
    add("--global-batch", type=int, metavar="N", help=global_batch)
    add("--precision", default="bf16", help="training precision: fp32 | bf16 | fp16 (default: %(default)s)")
    tokens = "encoder tokens per molecule, including padding (default: %(default)s)"
    add("--tokens", type=int, default=Plan.tokens, metavar="N", help=tokens)
    negatives = "negatives of the contrastive term: none | local | global (default: %(default)s)"
    add("--negatives", default=Plan.negatives, help=negatives)
    add("--steps", type=int, default=250_000, metavar="N", help="number of training steps (default: %(default)s)")
    network = "YAML file with the sizes under `network:`, such as conf/model/*.yaml (default: the paper's sizes)"
    add("--network", metavar="FILE", help=network)
    add("--verbose", action="store_true", help="also print the components of time and memory")
    parser.set_defaults(run=_run_plan)


def _run_plan(args: argparse.Namespace) -> None:
    from ..scaling import Plan, describe, machine_named, predict, read_network, table

    names = ("devices", "tensor_parallel", "precision", "tokens", "negatives")
    settings = {name: getattr(args, name) for name in names} | {"machine": machine_named(args.machine)}
    if args.network:
        settings["network"] = read_network(args.network)
    plans = [Plan.of_global_batch(args.global_batch, args.micro_batch, nodes=nodes, **settings) for nodes in args.nodes]
    predictions = [predict(plan) for plan in plans]
    print(table(predictions, args.steps))
    if args.verbose:
        print("\n".join(["", *map(describe, predictions)]))


def _add_compare(commands: Commands) -> None:
    about = (
        "Trains objectives on the same molecules in the same order, evaluates them, and writes a table and a figure. The settings are in "
        "conf/compare.yaml."
    )
    parser = commands.add_parser("compare", help="train objectives and compare them (requires [train])", description=about)
    overrides = "Hydra overrides of the settings, such as objectives=[cmim,mim] steps=2000, and of conf/pretrain.yaml for all runs"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    parser.set_defaults(run=_run_compare, resumes=True)


def _run_compare(args: argparse.Namespace) -> None:
    run = _training("run")  # first: without the [train] extra, it raises an error that names the missing package
    from omegaconf import OmegaConf

    from ..errors import ConfigError
    from ..evaluation.compare import compare
    from ..evaluation.runs import planned
    from ..evaluation.settings import CompareConfig
    from ..mappings import check_keys, from_mapping
    from ..training.overrides import groups_of

    known = [field.name for field in dataclasses.fields(CompareConfig)]
    section = {override: re.split(r"[.=@/]", override.lstrip("+~"))[0] for override in args.overrides}
    check_keys(section.values(), [*known, *run.KEYS, *groups_of(run.config_folder())], "")
    own = [override for override in args.overrides if section[override] in known]
    settings = run.compose(own, "compare")
    for key in ("data", "steps"):
        if OmegaConf.is_missing(settings, key):
            raise ConfigError(f"{key} is not set: pass {key}=VALUE.")
    train = [override for override in args.overrides if override not in own]
    config = from_mapping(CompareConfig, {**OmegaConf.to_container(settings, resolve=True), "train": train})
    models = [run.check_settings(run.compose(one.overrides)) for one in planned(config)]  # errors come before the first run
    print(f"Comparison: {compare(config, max_tokens=models[0].network.max_tokens, say=partial(print, flush=True))}")
