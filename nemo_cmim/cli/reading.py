"""Options of commands that read files of molecules, and of the model."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..steps import SALTS_AND_CHARGES
from ..tables.layout import ReadOptions

__all__ = [
    "FILES",
    "add_model",
    "add_precision",
    "add_read_options",
    "add_resume",
    "add_standardise",
    "add_text_options",
    "read_options",
]

FILES = ".csv, .tsv, .txt, .smi, .sdf, .mol or .parquet, also compressed (.gz, .bz2, .xz, .zst)"
_STEPS = (
    "extras = drop a CXSMILES extension and a name after the SMILES, atom-maps = drop the numbers of atoms of a reaction, desalt = keep "
    "only the largest fragment, neutralise = add or remove protons to remove charges, where possible"
)


def add_read_options(add: Callable[..., argparse.Action], dest: str = "smiles") -> None:
    """Adds --smiles, which sets `dest`, --delimiter and --no-header."""
    _add_smiles(add, dest)
    add_text_options(add, "--smiles is then a number")


def _add_smiles(add: Callable[..., argparse.Action], dest: str) -> None:
    smiles = (
        "name of the SMILES column, or its number, counted from 1 (default: the column smiles, canonical_smiles or isomeric_smiles)"
    )
    add("--smiles", dest=dest, metavar="COLUMN", help=smiles)
    add("--column", dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # its name in earlier versions


def add_text_options(add: Callable[..., argparse.Action], columns: str) -> None:
    """Adds --delimiter and --no-header; `columns` says what that means for options that name columns."""
    add("--delimiter", metavar="CHAR", help="character between columns, or tab, or space (default: detected)")
    header = f"the first line is a molecule, not column names; {columns} (default: detected)"
    add("--no-header", dest="header", action="store_false", default=None, help=header)


def read_options(args: argparse.Namespace) -> ReadOptions:
    """The values of these options, and of --standardise if the command has it."""
    return ReadOptions(args.smiles, args.delimiter, args.header, getattr(args, "standardise", ()))


def add_standardise(add: Callable[..., argparse.Action]) -> None:
    """Adds --standardise."""
    text = (
        f"steps applied to each molecule, comma-separated, always in this order: {_STEPS} (default: none; the option without a value: "
        f"{','.join(SALTS_AND_CHARGES)})"
    )
    add("--standardise", type=_steps, nargs="?", const=SALTS_AND_CHARGES, default=(), metavar="STEP[,STEP...]", help=text)


def _steps(text: str) -> tuple[str, ...]:
    return tuple(step.strip() for step in text.split(","))


def add_model(add: Callable[..., argparse.Action], default: str = "the first that `nemo-cmim models` lists") -> None:
    """Adds --model and --device."""
    add(
        "--model",
        metavar="MODEL",
        help=f"name of a shipped model, path of a .nemo file, or hf://owner/name#SHA256 (default: {default})",
    )
    add("--device", help="device of the network, for example cpu or cuda:0 (default: a GPU if there is one, else cpu)")


def add_precision(add: Callable[..., argparse.Action]) -> None:
    """Adds --precision."""
    add(
        "--precision", choices=("fp32", "bf16", "fp16"), help="precision of the network; bf16 and fp16 are for GPUs (default: fp32)"
    )


def add_resume(add: Callable[..., argparse.Action]) -> None:
    """Adds --resume."""
    text = "keep finished parts until the output is complete; a repeated call with this option continues after an interruption"
    add("--resume", action="store_true", help=text)
