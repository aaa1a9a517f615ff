"""`nemo-cmim index | neighbors`, and `embed --scheduler`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from .commands import Commands
from .generated import add_outputs, print_streamed, stream_options
from .messages import with_options
from .output import list_rows, progress_bar, say
from .reading import FILES, add_model, add_read_options, read_options

__all__ = ["add_commands", "add_library_options", "run_on_workers"]

_LIBRARY = "folder written by `nemo-cmim embed --scheduler`, or Parquet file written by `nemo-cmim embed`"

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
        precision=args.precision, engine=args.engine, overwrite=args.overwrite, progress=True, **given,
    )  # fmt: skip
    say(args.output, f"{done.counts['rows']:,} rows in {len(done.parts):,} files, {args.kind} embeddings")
    what = ", ".join(f"{count:,} {reason}" for reason, count in done.invalid.items())
    wording = partial(with_options, parser=args.parser)
    list_rows(done.counts["invalid"], list(map(wording, done.examples)), f"rows are invalid, without embedding ({what})")


def add_commands(commands: Commands) -> None:
    """Adds the commands of this module to the command line."""
    _add_index(commands)
    _add_neighbors(commands)


def _add_index(commands: Commands) -> None:
    about = (
        "Builds an index for `nemo-cmim neighbors`, in files beside the embeddings, and prints its recall: the fraction of the 10 nearest "
        "molecules of exact search that it finds. Needs pip install 'nemo_cmim[search]'. Can be interrupted; rerun to resume."
    )
    parser = commands.add_parser("index", help="build an index of an embedded library", description=about)
    add = parser.add_argument
    add("library", metavar="LIBRARY", help=_LIBRARY)
    stored = "type of the numbers in the index, float16 or int8, which is smaller and less exact (default: %(default)s)"
    add("--stored", choices=("float16", "int8"), default="float16", help=stored)
    shard = "number of rows of one graph, which is in memory while it is built (default: 5,000,000)"
    add("--shard-rows", type=int, metavar="N", help=shard)
    add("--overwrite", action="store_true", help="replace an existing index")
    parser.set_defaults(run=_run_index, resumes=True)


def _run_index(args: argparse.Namespace) -> None:
    from ..neighbors import build_index

    given = {} if args.shard_rows is None else {"shard_rows": args.shard_rows}
    with progress_bar("index") as show:
        built = build_index(args.library, stored=args.stored, overwrite=args.overwrite, progress=show, **given)
    print(
        f"{args.library}: index of {built.vectors:,} vectors, {built.bytes / 1e6:,.1f} MB; recall@10 {built.recall:.3f} against exact "
        f"search, for {built.queries} of its molecules"
    )


def _add_neighbors(commands: Commands) -> None:
    about = (
        "Finds the molecules of an embedded library whose embeddings are nearest to that of each molecule of a file. Its columns are "
        "repeated, and these are added: `rank`, `similarity` (cosine of the embeddings), and the columns of the library as "
        "`library_NAME`. Uses the index of the library, if it has one; otherwise, all molecules are compared."
    )
    parser = commands.add_parser("neighbors", help="find the nearest molecules of an embedded library", description=about)
    add = parser.add_argument
    add("query", metavar="QUERY", help=f"a SMILES; {FILES}; a URL; or - for standard input")
    add("library", metavar="LIBRARY", help=f"{_LIBRARY}; or its URL")
    add_outputs(add, smi=False, default="-")
    add("-k", type=int, default=10, metavar="N", help="number of molecules to find for each molecule (default: %(default)s)")
    add("--exact", action="store_const", const=True, help="compare with all molecules of the library, without its index")
    add_read_options(add)
    add_model(add, default="the model that the library names")
    parser.set_defaults(run=_run_neighbors)


def _run_neighbors(args: argparse.Namespace) -> None:
    from ..neighbors import neighbors_file

    with progress_bar("neighbors", "rows") as show:
        done, is_exact = neighbors_file(
            args.query, args.library, args.output, args.k, model=args.model, device=args.device, exact=args.exact,
            read=read_options(args), options=stream_options(args, show),
        )  # fmt: skip
    print(f"{'exact search' if is_exact else 'searched the index'}: {args.library}", file=sys.stderr)
    print_streamed(args.output, done)
