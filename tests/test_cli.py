"""Defaults and choices of options equal those of the functions that the commands call.

The parser states them itself, since importing the functions would make `nemo-cmim --help` import torch.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from nemo_cmim import PropertyModel, downstream, load_property_model
from nemo_cmim.cli import build_parser
from nemo_cmim.cli.properties import SETTINGS
from nemo_cmim.generation import DecodingSettings
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.capabilities import KINDS
from nemo_cmim.inference.stream import embed_file
from nemo_cmim.properties.data import read_property_data
from nemo_cmim.streaming.optimize import optimize_file
from nemo_cmim.streaming.predict import predict_file
from nemo_cmim.streaming.rows import StreamOptions
from nemo_cmim.streaming.sample import sample_around
from nemo_cmim.streaming.score import score_file


def options(command: str) -> dict[str, argparse.Action]:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {action.dest: action for action in commands.choices[command]._actions if action.help != argparse.SUPPRESS}


def default(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


@pytest.mark.parametrize(
    ("command", "option", "function", "parameter"),
    [
        *(
            ("embed", name, embed_file, name)
            for name in ("standardise", "kind", "layers", "on_invalid", "rejects", "batch_size", "overwrite", "resume")
        ),
        *(("regress", name, downstream.load_csv, name) for name in ("smiles", "target", "unit", "on_invalid")),
        *(("regress", name, downstream.evaluate, name) for name in ("split", "folds")),
        *(("regress", name, downstream.named_heads, name) for name in ("mlp_steps", "device")),
        *(("fit", name, PropertyModel, name) for name in (*SETTINGS, "model", "device", "standardise")),
        ("fit", "seed", PropertyModel, "random_state"),
        ("fit", "processes", PropertyModel, "n_jobs"),
        ("fit", "on_invalid", read_property_data, "on_invalid"),
        *(("fit", name, PropertyModel.save, name) for name in ("unit", "licence")),
        ("predict", "prefix", predict_file, "prefix"),
        *(("predict", name, load_property_model, name) for name in ("model", "device")),
        ("sample", "n", sample_around, "n"),
        ("interpolate", "steps", CMIMModel.interpolate, "steps"),
        ("decode", "n_best", DecodingSettings, "n_best"),
        *(("optimize", name, optimize_file, name) for name in ("objective", "plot", "grid", "seed", "standardise")),
        *(("score", name, score_file, name) for name in ("given", "per_token", "standardise")),
        *(
            (command, name, StreamOptions, name)
            for command in ("decode", "sample", "interpolate", "optimize", "score")
            for name in ("on_invalid", "rejects", "overwrite")
        ),
    ],
)
def test_defaults(command: str, option: str, function: Callable[..., Any], parameter: str) -> None:
    assert options(command)[option].default == default(function, parameter)


def test_seeds_of_regress_are_those_of_evaluate() -> None:
    assert range(options("regress")["seeds"].default) == range(len(default(downstream.evaluate, "seeds")))
    assert default(downstream.evaluate, "seeds") == (0, 1, 2)


def test_kinds() -> None:
    assert options("embed")["kind"].choices == KINDS


STATED = {
    "sample": ("scaled_radius", "unit", "density", "beam_size", "attempts"),
    "optimize": ("algorithm", "evaluations", "population", "scaled_radius", "unit", "min_similarity", "n"),
}


@pytest.mark.parametrize(("command", "option"), [(command, option) for command, names in STATED.items() for option in names])
def test_defaults_that_the_help_states_are_those_of_the_model(command: str, option: str) -> None:
    """The command does not pass options that are not given."""
    parameters = inspect.signature(getattr(CMIMModel, command)).parameters
    (stated,) = re.findall(r"\(default: (.*)\)", options(command)[option].help or "")
    assert stated == (f"{value:g}" if isinstance(value := parameters[option].default, (int, float)) else value)
