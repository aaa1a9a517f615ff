"""Options of all commands that read files of molecules."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..tables.layout import ReadOptions

__all__ = ["FILES", "add_read_options", "read_options"]

FILES = ".csv, .tsv, .txt, .smi, .sdf, .mol or .parquet, also compressed (.gz, .bz2, .xz, .zst)"


def add_read_options(add: Callable[..., argparse.Action]) -> None:
    """Adds --smiles, --delimiter and --no-header."""
    smiles = (
        "name of the SMILES column, or its number, counted from 1 (default: the column smiles, canonical_smiles or isomeric_smiles)"
    )
    add("--smiles", metavar="COLUMN", help=smiles)
    add("--column", dest="smiles", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # the name in earlier versions
    add("--delimiter", metavar="CHAR", help="character between columns, or tab, or space (default: detected)")
    header = "the first line is a molecule, not column names; --smiles is then a number (default: detected)"
    add("--no-header", dest="header", action="store_false", default=None, help=header)


def read_options(args: argparse.Namespace) -> ReadOptions:
    """The values of these options."""
    return ReadOptions(args.smiles, args.delimiter, args.header)
