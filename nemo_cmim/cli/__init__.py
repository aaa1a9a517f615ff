"""The command line: each command is one call of the package. Heavy modules are imported when a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..signals import sigterm_raises
from ..version import __version__
from . import data, density, engines, generation, library, molecules, properties, search, serve, training
from .messages import reason_of, warnings_as_lines, with_options

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. The parsed arguments contain the parser of their command as `parser`."""
    about = "Molecular embeddings for property prediction: prepares data, trains models, embeds molecules."
    parser = argparse.ArgumentParser(prog="nemo-cmim", description=about)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for part in (data, training, molecules, library, properties, density, engines, generation, search, serve):
        part.add_commands(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0; 2 after an invalid argument or input, or an error of the operating system, which is reported in one line; 130
        after SIGINT.

    Raises:
        SystemExit: After SIGTERM, with the status 143, or if the arguments cannot be parsed.
    """
    command, parser = "nemo-cmim", None
    try:
        with sigterm_raises():
            args = build_parser().parse_args(argv)
            command, parser = f"{command} {args.command}", args.parser
            with warnings_as_lines(command, parser):
                args.run(args)
                sys.stdout.flush()
    except BrokenPipeError:  # for example `| head`
        _discard_output()
    except KeyboardInterrupt:
        hint = " Rerun to resume." if parser is not None and parser.get_default("resumes") else ""
        print(f"{command}: interrupted.{hint}", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"{command}: {with_options(reason_of(error), parser, sys.argv[1:] if argv is None else argv)}", file=sys.stderr)
        _discard_output()
        return 2
    return 0


def _discard_output() -> None:
    """Discards what stdout did not accept. Otherwise Python would write it at exit, and report that error too."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
