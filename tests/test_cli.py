"""Defaults and choices of options equal those of the functions that the commands call.

The parser states them itself, since importing the functions would make `nemo-cmim --help` import torch.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from nemo_cmim import downstream
from nemo_cmim.cli import build_parser
from nemo_cmim.inference.capabilities import KINDS
from nemo_cmim.inference.stream import embed_file


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
    ],
)
def test_defaults(command: str, option: str, function: Callable[..., Any], parameter: str) -> None:
    assert options(command)[option].default == default(function, parameter)


def test_seeds_of_regress_are_those_of_evaluate() -> None:
    assert range(options("regress")["seeds"].default) == range(len(default(downstream.evaluate, "seeds")))
    assert default(downstream.evaluate, "seeds") == (0, 1, 2)


def test_kinds() -> None:
    assert options("embed")["kind"].choices == KINDS
