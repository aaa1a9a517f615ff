"""`nemo-cmim embed --scheduler`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from .messages import with_options
from .output import list_rows, say
from .reading import read_options

__all__ = ["add_library_options", "run_on_workers"]

_ALONE = ("rejects", "changes", "n_jobs")  # options of `embed` to a file


def add_library_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the options of `embed` that write a folder on several processes or on a cluster."""
    scheduler = (
        "write a folder of Parquet files, on the workers of a Dask cluster: address of its scheduler, such as tcp://node0:8786; or local "
        "or local:N = N processes on this machine (default: one per core). -o is then a folder or URL, inputs may be URLs. Rerun to resume"
    )
    add("--scheduler", metavar="ADDRESS", help=scheduler)
    stored = "with --scheduler: type of the numbers, float32, float16 or int8 (default: float32)"
    add("--stored", choices=("float32", "float16", "int8"), help=stored)
    add("--part-rows", type=int, metavar="N", help="with --scheduler: number of rows of a Parquet file (default: 65,536)")


def run_on_workers(args: argparse.Namespace) -> None:
    """Runs `embed --scheduler`."""
    from ..distributed import embed_files

    for name in _ALONE:
        if getattr(args, name, None) is not None:
            raise ValueError(
                f"--scheduler writes the reasons of invalid rows to the column `invalid_reason` and chooses its own processes, so it "
                f"excludes {name}={getattr(args, name)!r}. Leave out one of them."
            )
    given = {name: getattr(args, name) for name in ("stored", "part_rows") if getattr(args, name) is not None}
    done = embed_files(
        args.inputs, args.output, scheduler=args.scheduler, model=args.model, options=read_options(args), kind=args.kind,
        layers=args.layers, standardise=args.standardise, on_invalid=args.on_invalid, batch_size=args.batch_size, device=args.device,
        overwrite=args.overwrite, progress=True, **given,
    )  # fmt: skip
    say(args.output, f"{done.counts['rows']:,} rows in {len(done.parts):,} files, {args.kind} embeddings")
    what = ", ".join(f"{count:,} {reason}" for reason, count in done.invalid.items())
    wording = partial(with_options, parser=args.parser)
    list_rows(done.counts["invalid"], list(map(wording, done.examples)), f"rows are invalid, without embedding ({what})")
