"""`nemo-cmim prepare` and `nemo-cmim data-report`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import Commands

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds these commands to the command line."""
    _add_prepare(commands)
    _add_data_report(commands)


def _add_prepare(commands: Commands) -> None:
    parser = commands.add_parser(
        "prepare",
        help="turn files of SMILES into training data",
        description="Canonicalises, filters, "
        "deduplicates and splits molecules, and writes them as tokens, with an account of every line.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=".smi, .txt, .csv or .parquet; plain, .gz or .xz")
    add("-o", "--output", required=True, metavar="FOLDER", help="the folder to write")
    add("--column", help="column of SMILES (default: smiles or canonical_smiles)")
    add("--max-molecular-weight", type=float, default=500.0, metavar="DA", help="heaviest to keep (default: %(default)s; inf: all)")
    add("--max-logp", type=float, default=5.0, metavar="LOGP", help="largest Crippen logP (default: %(default)s; inf: any)")
    add("--max-tokens", type=int, default=511, metavar="N", help="longest SMILES to keep, in tokens (default: %(default)s)")
    add("--valid-fraction", type=float, default=0.01, metavar="F", help="share of the validation split (default: %(default)s)")
    add("--test-fraction", type=float, default=0.01, metavar="F", help="share of the test split (default: %(default)s)")
    add("--vocabulary", metavar="FILE", help="vocabulary to use (default: the shipped one)")
    add("--limit", type=int, metavar="N", help="read only the first N lines of all inputs together")
    add("--processes", type=int, metavar="N", help="processes to use (default: one per core)")
    add("--overwrite", action="store_true", help="replace a folder that prepare wrote before")
    parser.set_defaults(run=_run_prepare)


def _run_prepare(args: argparse.Namespace) -> None:
    from ..data.prepare import REJECTED, prepare

    settings = {k: v for k, v in vars(args).items() if k not in ("command", "run", "inputs", "output")}
    manifest = prepare(args.inputs, args.output, progress=True, **settings)
    splits = ", ".join(f"{split} {numbers['molecules']:,}" for split, numbers in manifest.splits.items())
    print(f"{args.output}: kept {manifest.counts['kept']:,} of {manifest.counts['read']:,} lines ({splits})")
    for reason, count in manifest.rejected.items():
        print(f"  rejected {count:,}: {reason}")
    if manifest.rejected:
        print(f"  every rejected line is in {args.output}/{REJECTED}")


def _add_data_report(commands: Commands) -> None:
    parser = commands.add_parser(
        "data-report",
        help="write a page about prepared data",
        description="Writes one HTML file about a folder of prepare's: "
        "counts, tranches, properties, tokens, rejected and kept molecules. It opens without a network.",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what prepare wrote")
    add("-o", "--output", default="report.html", metavar="FILE", help="the page to write (default: %(default)s)")
    add("--sample", type=int, default=10_000, metavar="N", help="molecules to compute weight and logP of (default: %(default)s)")
    add("--seed", type=int, default=0, help="another seed takes another sample (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run_data_report)


def _run_data_report(args: argparse.Namespace) -> None:
    from ..data.report import write_data_report

    write_data_report(args.folder, args.output, sample=args.sample, seed=args.seed, overwrite=args.overwrite)
    print(f"{args.output}: open it in a browser")
