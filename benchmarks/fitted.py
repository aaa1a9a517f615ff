"""Models with a density of latents, for the benchmarks of sampling and search."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.molecules import moses_file
from nemo_cmim.inference import CMIMModel, list_models
from nemo_cmim.inference.fit_density import fit_density, sample_molecules
from nemo_cmim.inference.model_file import ModelFile
from nemo_cmim.inference.shipped import model_file_of
from nemo_cmim.models import CMIMNetwork

__all__ = ["add_model_options", "command_line", "fitted_model", "set_defaults", "with_random_weights"]


def add_model_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the options that both benchmarks have."""
    add("--model", metavar="NAME", help="name of a shipped model, or path of a .nemo file (default: the default model)")
    training = "files of molecules to fit a density to, if the model has none (default: MOSES' training set)"
    add("--training", nargs="+", type=Path, metavar="FILE", help=training)
    count = "size of the random sample of the training molecules that the density is fitted to (default: %(default)s)"
    add("--training-molecules", type=int, default=20_000, metavar="N", help=count)
    add("--held-out", type=Path, metavar="FILE", help="file of held-out molecules (default: MOSES' test set)")
    add("--device", default="cpu", help="device of the network (default: %(default)s)")
    add("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")


def set_defaults(args: argparse.Namespace) -> None:
    """Sets the options that were not given and whose defaults are files of installed packages."""
    args.model = args.model or list_models()[0]
    args.training = args.training or [moses_file("train")]
    args.held_out = args.held_out or moses_file("test")


def fitted_model(args: argparse.Namespace) -> tuple[CMIMModel, str]:
    """The model with a density: its own one, or else one that is fitted here; and a sentence that says which."""
    content = model_file_of(args.model)
    if content.density is not None:
        return CMIMModel(content, args.device), f"The density is that of the model file, {content.density}."
    names = ", ".join(path.name for path in args.training)
    model = _fitted(content, args)
    return (
        model,
        f"The model has no density: {model.density} was fitted to {args.training_molecules:,} random molecules of {names}.",
    )


def with_random_weights(args: argparse.Namespace, seed: int) -> CMIMModel:
    """The network with random initial weights and a density that is fitted to its latents: the control without training."""
    content = model_file_of(args.model)
    torch.manual_seed(seed)
    weights = CMIMNetwork(content.config.network).state_dict()
    return _fitted(dataclasses.replace(content, weights=weights), args)


def command_line(name: str) -> str:
    """The command that repeats this run, with the names of files in place of their paths."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *words])


def _fitted(content: ModelFile, args: argparse.Namespace) -> CMIMModel:
    molecules = _training_molecules(tuple(args.training), args.training_molecules)
    return CMIMModel(fit_density(content, molecules, device=args.device), args.device)


@functools.cache
def _training_molecules(files: tuple[Path, ...], count: int) -> list[str]:
    return sample_molecules(files, count, seed=0)
