"""The command line: each command is one call of the package. Heavy modules are imported when a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import data, molecules, training

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    about = "Molecular embeddings for property prediction: prepares data, trains models, embeds molecules."
    parser = argparse.ArgumentParser(prog="nemo-cmim", description=about)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (data, training, molecules):
        part.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0, or 2 after an invalid argument or input, which is reported in one line."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # for example `| head`; Python would write the rest of the buffer at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"nemo-cmim {args.command}: {error}", file=sys.stderr)
        return 2
    return 0
