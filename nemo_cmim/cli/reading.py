"""Options of all commands that read files of molecules."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..tables.layout import ReadOptions

__all__ = ["FILES", "add_read_options", "add_standardise", "read_options"]

FILES = ".csv, .tsv, .txt, .smi, .sdf, .mol or .parquet, also compressed (.gz, .bz2, .xz, .zst)"
_STEPS = (
    "extras = drop a CXSMILES extension and a name after the SMILES, atom-maps = drop the numbers of atoms of a reaction, desalt = keep "
    "only the largest fragment, neutralise = add or remove protons to remove charges, where possible"
)


def add_read_options(add: Callable[..., argparse.Action], dest: str = "smiles") -> None:
    """Adds --smiles, which sets `dest`, --delimiter and --no-header."""
    smiles = (
        "name of the SMILES column, or its number, counted from 1 (default: the column smiles, canonical_smiles or isomeric_smiles)"
    )
    add("--smiles", dest=dest, metavar="COLUMN", help=smiles)
    add("--column", dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # its name in earlier versions
    add("--delimiter", metavar="CHAR", help="character between columns, or tab, or space (default: detected)")
    header = "the first line is a molecule, not column names; --smiles is then a number (default: detected)"
    add("--no-header", dest="header", action="store_false", default=None, help=header)


def read_options(args: argparse.Namespace) -> ReadOptions:
    """The values of these options, and of --standardise if the command has it."""
    return ReadOptions(args.smiles, args.delimiter, args.header, getattr(args, "standardise", ()))


def add_standardise(add: Callable[..., argparse.Action]) -> None:
    """Adds --standardise."""
    text = f"steps applied to each molecule, comma-separated, always in this order: {_STEPS} (default: none)"
    add("--standardise", type=_steps, default=(), metavar="STEP[,STEP...]", help=text)


def _steps(text: str) -> tuple[str, ...]:
    return tuple(step.strip() for step in text.split(","))
