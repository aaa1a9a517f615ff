"""Options of all commands that generate or score molecules, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .messages import with_options
from .output import list_rows, say

if TYPE_CHECKING:
    from ..streaming.rows import Streamed, StreamOptions
    from ..tables.progress import Progress

__all__ = ["add_decoding", "add_outputs", "check_effect", "chosen", "print_streamed", "stream_options"]


def add_outputs(add: Callable[..., argparse.Action], *, smi: bool, default: str | None = None) -> None:
    """Adds -o, which is required without a default, --overwrite, --on-invalid and --rejects."""
    output = "output file: .csv, .csv.gz, .parquet" + (" or .smi (only SMILES and names)" if smi else "")
    ending = f" (default: {default})" if default else ""
    text = f"{output}; or - for CSV on standard output{ending}"
    add("-o", "--output", required=default is None, default=default, metavar="FILE", help=text)
    add("--overwrite", action="store_true", help="replace output files if they exist")
    invalid = "what to do with an invalid row: raise = stop with an error, nan = write it without result (default: %(default)s)"
    add("--on-invalid", choices=("raise", "nan"), default="raise", help=invalid)
    add("--rejects", metavar="FILE", help="CSV file to write with the place, SMILES and reason of each row without result")


def add_decoding(add: Callable[..., argparse.Action]) -> None:
    """Adds the options of decoding that several commands have."""
    add(
        "--beam-size",
        type=int,
        metavar="N",
        help="partial sequences that are kept for each latent, 1 to 10; 1 = greedy (default: 1)",
    )
    temperature = "draw tokens, from a distribution that is flatter for higher numbers (default: take the most likely tokens)"
    add("--temperature", type=float, metavar="T", help=temperature)
    add("--top-k", type=int, metavar="N", help="draw only from so many most likely tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="draw only from the most likely tokens with this total probability (default: all)")
    add("--grammar", action="store_true", help="allow only tokens that can continue a SMILES: no branch or ring stays open")
    add("--max-tokens", type=int, metavar="N", help="maximum number of tokens of a SMILES (default: that of the model)")


def chosen(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options with these names that were given. The others are left to the defaults of the function that is called."""
    values = {name: getattr(args, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value != args.parser.get_default(name)}


def check_effect(args: argparse.Namespace, names: Sequence[str], what: str) -> None:
    """Raises a `ConfigError` if one of these options is given: `what` says why it has no effect."""
    from ..errors import ConfigError

    given = chosen(args, names)
    for action in args.parser._actions:
        if action.dest in given:
            raise ConfigError(f"{action.option_strings[-1]} has no effect {what}. Leave it out.")


def stream_options(args: argparse.Namespace, progress: Progress) -> StreamOptions:
    """The values of the options of `add_outputs`."""
    from ..streaming.rows import StreamOptions

    wording = partial(with_options, parser=args.parser)
    models = [getattr(args, name, None) for name in ("model", "property_model")]
    reads = tuple(name for name in models if name is not None and Path(name).exists())
    return StreamOptions(args.on_invalid, args.rejects, args.overwrite, progress, wording, reads)


def print_streamed(output: str, done: Streamed) -> None:
    """Prints how many rows were read and written, and the first of those without result."""
    say(output, f"{done.written:,} rows from {done.rows:,}")
    list_rows(done.invalid.total, done.invalid.examples, "rows are invalid and have no result")
    list_rows(done.empty.total, done.empty.examples, "rows have no result")
