"""`nemo-cmim tranches | download | prepare | data-report | overlap`: from properties of molecules to training data.

nemo-cmim tranches [CONDITION...]                  lists ZINC tranches by property; by default those of the paper
nemo-cmim download LIST_OR_CONDITION... -o FOLDER  fetches them; stopped at any time, it goes on when run again
nemo-cmim prepare INPUT... -o FOLDER               canonicalises, filters, deduplicates, splits, tokenises
nemo-cmim data-report FOLDER [-o FILE]             writes a page about that folder
nemo-cmim overlap FOLDER FILE                      counts which molecules of a file are in that folder
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .commands import Commands

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds these commands to the command line."""
    _add_tranches(commands)
    _add_download(commands)
    _add_prepare(commands)
    _add_data_report(commands)
    _add_overlap(commands)


def _add_tranches(commands: Commands) -> None:
    from ..zinc.tranches import PAPER
    from ..zinc.url_lists import FORMS

    parser = commands.add_parser(
        "tranches",
        help="list ZINC tranches by property",
        description="Lists the tranches of ZINC that meet all conditions, such as 'mw<=500' 'logp>-1' reactivity=standard "
        "purchasability=A,B subset=lead-like, or the code of a tranche. Put < and > into quotes.",
    )
    add = parser.add_argument
    add("conditions", nargs="*", metavar="CONDITION", help=f"what must hold (default: the paper's, {PAPER})")
    add(
        "--format",
        choices=(*FORMS, "table"),
        default="uri",
        help="form of the list; table: what the codes mean (default: %(default)s)",
    )
    _add_tranche_options(add)
    add("-o", "--output", metavar="FILE", help="the file to write (default: stdout)")
    parser.set_defaults(run=_run_tranches)


def _add_tranche_options(add: Callable[..., argparse.Action]) -> None:
    from ..zinc.tranches import BASE

    add("--extension", choices=("smi", "txt"), default="smi", help="kind of files; txt has more columns (default: %(default)s)")
    add("--all", action="store_true", help="also tranches that are known not to exist")
    add("--base", default=BASE, metavar="URL", help="where the tranches are (default: %(default)s)")


def _run_tranches(args: argparse.Namespace) -> None:
    from ..zinc.tranches import PAPER, describe, select
    from ..zinc.url_lists import list_lines

    tranches = select(args.conditions or PAPER, include_absent=args.all)
    lines = describe(tranches) if args.format == "table" else list_lines(tranches, args.format, args.extension, args.base)
    text = "".join(f"{line}\n" for line in lines)
    if args.output:
        try:
            Path(args.output).write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"{args.output} cannot be written: {error}. Name another file by -o.") from error
    print(f"{len(tranches):,} tranches", file=sys.stderr)
    if not args.output:
        sys.stdout.write(text)


def _add_download(commands: Commands) -> None:
    parser = commands.add_parser(
        "download",
        help="fetch ZINC tranches, or what else lists of URLs name",
        description="Fetches files over HTTP and checks that they are whole. Stopped at any time, it goes on when it is run again.",
    )
    add = parser.add_argument
    what = "a .uri, .wget or curl list as ZINC writes them, also .gz, or conditions as in `nemo-cmim tranches`"
    add("what", nargs="+", metavar="LIST_OR_CONDITION", help=what)
    add("-o", "--output", required=True, metavar="FOLDER", help="the folder to write; downloads.json there tells of every file")
    _add_tranche_options(add)
    add("--retry-missing", action="store_true", help="ask again for files that the server did not have")
    add("--threads", type=int, default=4, metavar="N", help="files at a time (default: %(default)s)")
    add("--attempts", type=int, default=6, metavar="N", help="tries of each file (default: %(default)s)")
    add("--connect-timeout", type=float, default=15.0, metavar="S", help="seconds to wait for a connection (default: %(default)s)")
    add("--read-timeout", type=float, default=60.0, metavar="S", help="seconds to wait for the next byte (default: %(default)s)")
    add("--requests-per-second", type=float, default=4.0, metavar="N", help="at most, of all threads (default: %(default)s)")
    add("--bytes-per-second", type=float, default=20e6, metavar="N", help="likewise (default: %(default).0f)")
    parser.set_defaults(run=_run_download)


def _run_download(args: argparse.Namespace) -> None:
    from ..zinc.download import DOWNLOADS, download
    from ..zinc.transfer import RetryPolicy
    from ..zinc.url_lists import sources_of

    names = ("threads", "attempts", "connect_timeout", "read_timeout", "requests_per_second", "bytes_per_second")
    retry_policy = RetryPolicy(**{name: getattr(args, name) for name in names})
    sources, duplicates = sources_of(args.what, args.extension, args.base, include_absent=args.all)
    for path, count in duplicates.items():
        if count:
            print(f"{path}: {count:,} repeated lines are passed over", file=sys.stderr)
    try:
        result = download(sources, args.output, retry_policy=retry_policy, retry_missing=args.retry_missing, progress=True)
    except KeyboardInterrupt:
        print("nemo-cmim download: stopped. Run it again: it goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None
    counts = result.counts
    print(f"{args.output}: {counts['complete']:,} files complete ({counts['lines']:,} lines, {counts['bytes']:,} bytes)")
    missing = [entry.file for entry in result.entries.values() if entry.state == "missing"]
    if missing:
        more = f" and {len(missing) - 3:,} more, see {args.output}/{DOWNLOADS}" if len(missing) > 3 else ""
        print(f"  missing on the server: {', '.join(missing[:3])}{more}")


def _add_prepare(commands: Commands) -> None:
    parser = commands.add_parser(
        "prepare",
        help="turn files of SMILES into training data",
        description="Canonicalises, filters, deduplicates and splits molecules, and writes them as tokens, with an account of every "
        "line. Cut off at any moment, it goes on when called again in the same way.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=".smi, .txt, .csv or .parquet; plain, .gz or .xz; or a folder of such files")
    add("-o", "--output", required=True, metavar="FOLDER", help="the folder to write")
    add("--vocabulary", metavar="FILE", help="vocabulary to use (default: the shipped one)")
    add("--processes", type=int, metavar="N", help="processes to use (default: one per core)")
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="work on this dask.distributed cluster, such as tcp://node0:8786; all see one file system",
    )
    add("--overwrite", action="store_true", help="replace a folder that prepare wrote before")
    add("--restart", action="store_true", help="throw away the unfinished work of an earlier call")
    _add_settings(parser.add_argument_group("what is in the folder").add_argument)
    parser.set_defaults(run=_run_prepare)


def _add_settings(add: Callable[..., argparse.Action]) -> None:
    """The fields of `data.settings.Settings`. One that is not given is not passed on."""

    def setting(option: str, text: str, **how: Any) -> None:
        add(option, default=argparse.SUPPRESS, help=text, **how)

    setting("--column", "column of SMILES (default: smiles or canonical_smiles)")
    setting("--max-molecular-weight", "heaviest to keep, Da (default: 500; inf: all)", type=float, metavar="DA")
    setting("--max-logp", "largest Crippen logP to keep (default: 5; inf: any)", type=float, metavar="LOGP")
    setting("--max-tokens", "longest SMILES to keep, in tokens (default: 511)", type=int, metavar="N")
    setting("--desalt", "keep only the largest fragment of each molecule", action="store_true")
    setting("--neutralise", "remove charges where protons can be added or taken away", action="store_true")
    always = "compute logP also where the letter of a ZINC tranche puts it below the limit, which takes far longer"
    setting("--compute-logp", always, action="store_false", dest="trust_tranches")
    setting("--valid-fraction", "share of the validation split (default: the paper's, 100k of 730M)", type=float, metavar="F")
    setting("--valid-molecules", "exact size of the validation split, in place of its share", type=int, metavar="N")
    setting("--test-fraction", "share of the test split (default: the paper's, 7M of 730M)", type=float, metavar="F")
    setting("--test-molecules", "exact size of the test split, in place of its share", type=int, metavar="N")
    setting("--limit", "read only the first N lines of all inputs together", type=int, metavar="N")
    setting("--piece-lines", "lines that one task curates (default: 100,000)", type=int, metavar="N")
    setting("--shard-molecules", "about how many molecules a shard is to hold (default: 1,000,000)", type=int, metavar="N")


def _run_prepare(args: argparse.Namespace) -> None:
    from ..prepare.prepare import prepare
    from ..prepare.rejects import REJECTED

    settings = {k: v for k, v in vars(args).items() if k not in ("command", "run", "inputs", "output")}
    manifest = prepare(args.inputs, args.output, progress=True, **settings)
    splits = ", ".join(f"{split} {numbers['molecules']:,}" for split, numbers in manifest.splits.items())
    print(f"{args.output}: kept {manifest.counts['kept']:,} of {manifest.counts['read']:,} lines ({splits})")
    for reason, count in manifest.rejected.items():
        print(f"  rejected {count:,}: {reason}")
    if manifest.rejected:
        print(f"  every rejected line is in {args.output}/{REJECTED}")
    empty = [part["file"] for part in manifest.inputs if not part["read"]]
    if empty and "limit" not in settings:
        print(f"  {len(empty):,} files hold a header and no molecules, such as {empty[0]}")
    for split, numbers in manifest.splits.items():
        if not numbers["molecules"]:
            print(f"  {split} is empty: for a part of so few molecules give --{split}-fraction or --{split}-molecules")


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
    from ..report.report import write_data_report

    write_data_report(args.folder, args.output, sample=args.sample, seed=args.seed, overwrite=args.overwrite)
    print(f"{args.output}: open it in a browser")


def _add_overlap(commands: Commands) -> None:
    parser = commands.add_parser(
        "overlap",
        help="count which molecules of a file are in prepared data",
        description="Looks up each molecule of FILE in the splits of a folder of prepare's, however it is spelled, and counts those that "
        "are in it, with and without regard to stereo: what of a test set a model that was trained on them may have seen.",
    )
    add = parser.add_argument
    add("folder", metavar="DATA", help="what prepare wrote")
    add("input", metavar="FILE", help=".smi, .txt, .csv or .parquet; plain, .gz or .xz")
    add("--column", metavar="NAME", help="column of SMILES (default: smiles or canonical_smiles)")
    add("--exact", action="store_true", help="do not seek molecules that differ in stereo, which reads all of DATA")
    add("-o", "--output", metavar="FILE", help="also write the lines that were found to this CSV file")
    parser.set_defaults(run=_run_overlap)


def _run_overlap(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..report.overlap import find_overlap, read_smiles

    lines, smiles = zip(*read_smiles(args.input, args.column))
    with tqdm(unit=" molecules", unit_scale=True, desc="read", disable=True if args.exact else None) as bar:
        found = find_overlap(args.folder, smiles, stereo=not args.exact, progress=bar.update)
    same = {**found.same, "any split": found.anywhere(found.same)}
    flat = {**found.flat, "any split": found.anywhere(found.flat)} if found.flat else {}
    print(f"Of {len(smiles):,} molecules of {args.input}, in {args.folder}:")
    for split, is_same in same.items():
        also = f", {flat[split].sum():,} without regard to stereo" if flat else ""
        print(f"  {split}: {is_same.sum():,} as they are{also}")
    if args.output:
        try:
            with open(args.output, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("line", "smiles", "split", "match"))
                for split, is_same in found.same.items():
                    for row in (found.flat or found.same)[split].nonzero()[0].tolist():
                        writer.writerow((lines[row], smiles[row], split, "same" if is_same[row] else "stereo"))
        except OSError as error:
            raise DataError(f"{args.output} cannot be written: {error}. Name another file by -o.") from error
