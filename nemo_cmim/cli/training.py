"""`nemo-cmim train | export | plan | compare | systems`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Commands

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds these commands to the command line."""
    _add_train(commands)
    _add_export(commands)
    _add_plan(commands)
    _add_compare(commands)
    _add_systems(commands)


def _add_train(commands: Commands) -> None:
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


def _add_export(commands: Commands) -> None:
    about = "Makes the .nemo file that nemo_cmim.load reads from a checkpoint of a run, of whatever parallel sizes, at any time."
    parser = commands.add_parser("export", help="turn a training checkpoint into a .nemo file (needs [train])", description=about)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder step=*.ckpt, or a run's folder: its newest sound one")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .nemo file to write")
    parser.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    print(f"{args.output}: exported {_training('checkpoints.export').export_from(args.checkpoint, args.output)}")


def _add_systems(commands: Commands) -> None:
    parser = commands.add_parser("systems", help="list the paper's systems, with parameters beside the paper's (needs [train])")
    parser.set_defaults(run=_run_systems)


def _run_systems(args: argparse.Namespace) -> None:
    print(_training("systems").describe_systems())


def _training(module: str) -> Any:
    """A module of `training`."""
    from ..errors import ConfigError

    try:
        return importlib.import_module(f"nemo_cmim.training.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"Training needs {error.name}, which is not installed. Run pip install 'nemo_cmim[train]'.") from error


def _add_plan(commands: Commands) -> None:
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

    from ..comparison import CompareConfig, compare, planned
    from ..config import from_mapping
    from ..errors import ConfigError
    from ..signals import sigterm_raises

    known = {field.name for field in dataclasses.fields(CompareConfig)}
    own = [override for override in args.overrides if re.split(r"[.=]", override.lstrip("+~"))[0] in known]
    settings = run.compose(own, "compare")
    for key in ("data", "steps"):
        if OmegaConf.is_missing(settings, key):
            raise ConfigError(f"{key} is not set: pass {key}=VALUE.")
    train = [override for override in args.overrides if override not in own]
    config = from_mapping(CompareConfig, {**OmegaConf.to_container(settings, resolve=True), "train": train})
    models = [run.model_settings(run.compose(one.overrides)) for one in planned(config)]  # says now what none can be trained with
    with sigterm_raises():  # so that its runs end with it
        print(f"Comparison: {compare(config, max_tokens=models[0].network.max_tokens, say=partial(print, flush=True))}")
