"""`nemo-cmim tranches | download | prepare | data-report | overlap`: from ZINC tranches to training data.

nemo-cmim tranches [CONDITION...]                  lists ZINC tranches by property; by default the paper's
nemo-cmim download LIST_OR_CONDITION... -o FOLDER  downloads them
nemo-cmim prepare INPUT... -o FOLDER               canonicalises, filters, deduplicates, splits, tokenizes
nemo-cmim data-report FOLDER [-o FILE]             writes an HTML page about that folder
nemo-cmim overlap FOLDER FILE                      counts the molecules of a file that are in that folder
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import Commands
from .reading import FILES, add_read_options, add_standardise, read_options

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
        description="Lists the ZINC tranches that meet all conditions. A condition limits a property, such as 'mw<=500', 'logp>-1', "
        "reactivity=standard, purchasability=A,B or subset=lead-like, or is the code of a tranche. Quote < and > for the shell.",
    )
    add = parser.add_argument
    add("conditions", nargs="*", metavar="CONDITION", help=f"conditions; all must be met (default: the paper's, {PAPER})")
    add(
        "--format",
        choices=(*FORMS, "table"),
        default="uri",
        help="format of the list; table: the meaning of each code (default: %(default)s)",
    )
    _add_tranche_options(add)
    add("-o", "--output", metavar="FILE", help="file to write (default: stdout)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run_tranches)


def _add_tranche_options(add: Callable[..., argparse.Action]) -> None:
    from ..zinc.tranches import BASE

    add("--extension", choices=("smi", "txt"), default="smi", help="file type; txt files have more columns (default: %(default)s)")
    add("--all", action="store_true", help="include tranches that are known not to exist")
    add("--base", default=BASE, metavar="URL", help="address of the tranches (default: %(default)s)")


def _run_tranches(args: argparse.Namespace) -> None:
    from ..outputs import write_file
    from ..zinc.tranches import PAPER, describe, select
    from ..zinc.url_lists import list_lines

    tranches = select(args.conditions or PAPER, include_absent=args.all)
    lines = describe(tranches) if args.format == "table" else list_lines(tranches, args.format, args.extension, args.base)
    text = "".join(f"{line}\n" for line in lines)
    if args.output:
        with write_file(args.output, overwrite=args.overwrite) as staging:
            staging.write_text(text, encoding="utf-8")
    print(f"{len(tranches):,} tranches", file=sys.stderr)
    if not args.output:
        sys.stdout.write(text)


def _add_download(commands: Commands) -> None:
    from ..zinc.transfer import RetryPolicy

    parser = commands.add_parser(
        "download",
        help="download ZINC tranches, or the files of any URL list",
        description="Downloads files over HTTP and checks that they are complete. Can be interrupted at any time; rerun to resume.",
    )
    add = parser.add_argument
    what = "a .uri, .wget or curl list in ZINC's format, also .gz; or conditions, see `nemo-cmim tranches --help`"
    add("what", nargs="+", metavar="LIST_OR_CONDITION", help=what)
    add(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder to write; downloads.json in it lists the state of every file",
    )
    _add_tranche_options(add)
    add("--retry-missing", action="store_true", help="request files again that were missing on the server")
    setting = functools.partial(_add_setting, add, RetryPolicy)
    setting("--threads", "number of files downloaded at a time")
    setting("--attempts", "number of attempts for each file")
    setting("--connect-timeout", "time limit for a connection, seconds", metavar="S")
    setting("--read-timeout", "time limit without data, seconds", metavar="S")
    setting("--requests-per-second", "maximum rate of requests, for all threads together")
    setting("--bytes-per-second", "maximum rate of data, for all threads together")
    parser.set_defaults(run=_run_download, resumes=True)


def _add_setting(add: Callable[..., argparse.Action], settings: type, option: str, text: str, **how: Any) -> None:
    """Adds an option for the field of this name of a dataclass, which gives its default and, if that is a number, its type."""
    default = getattr(settings, how.get("dest", option.removeprefix("--").replace("-", "_")))
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        text += f" (default: {default:,.10g})"
        how = {"type": type(default), "metavar": "N", **how}
    add(option, default=default, help=text, **how)


def _run_download(args: argparse.Namespace) -> None:
    from ..zinc.download import DOWNLOADS, download
    from ..zinc.transfer import RetryPolicy
    from ..zinc.url_lists import sources_of

    names = ("threads", "attempts", "connect_timeout", "read_timeout", "requests_per_second", "bytes_per_second")
    retry_policy = RetryPolicy(**{name: getattr(args, name) for name in names})
    sources, duplicates = sources_of(args.what, args.extension, args.base, include_absent=args.all)
    for path, count in duplicates.items():
        if count:
            print(f"{path}: {count:,} duplicate lines are skipped", file=sys.stderr)
    result = download(sources, args.output, retry_policy=retry_policy, retry_missing=args.retry_missing, progress=True)
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
        description="Canonicalises, filters, deduplicates and splits molecules, writes them as tokens, and reports why each rejected line "
        "was rejected. Can be interrupted at any time; rerun the same command to resume.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help=f"{FILES}; or a folder of such files")
    add("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    add("--vocabulary", metavar="FILE", help="vocabulary file (default: the shipped vocabulary)")
    add("--processes", type=int, metavar="N", help="number of processes (default: one per core)")
    cluster = "address of a dask.distributed scheduler, such as tcp://node0:8786, to use instead of processes on this machine"
    add("--scheduler", metavar="ADDRESS", help=f"{cluster}; all workers must see the same file system")
    add("--overwrite", action="store_true", help="replace a folder that prepare wrote")
    add("--restart", action="store_true", help="delete unfinished work of an earlier run instead of resuming it")
    _add_prepare_settings(parser.add_argument_group("contents of the folder").add_argument)
    parser.set_defaults(run=_run_prepare, resumes=True)


def _add_prepare_settings(add: Callable[..., argparse.Action]) -> None:
    from ..prepare.settings import PAPER_TEST, PAPER_VALID, Settings

    setting = functools.partial(_add_setting, add, Settings)
    add_read_options(add, dest="column")
    add_standardise(add)
    setting("--max-molecular-weight", "largest molecular weight to keep, Da; inf: no limit", metavar="DA")
    setting("--max-logp", "largest Crippen logP to keep; inf: no limit", metavar="LOGP")
    setting("--max-tokens", "largest number of tokens of a SMILES to keep")
    what = "observed properties to compute for objective.properties: none, standard, or names of RDKit descriptors, separated by commas"
    setting("--properties", f"{what} (default: none)", metavar="NAMES")
    setting("--fingerprint-bits", "number of bits of the Morgan fingerprint to compute for objective.properties; 0: none")
    logp = "also compute logP if the letter of a ZINC tranche puts it below the limit; much slower"
    add("--compute-logp", dest="trust_tranches", action="store_false", default=Settings.trust_tranches, help=logp)
    for split, name, fraction in (("valid", "validation", PAPER_VALID), ("test", "test", PAPER_TEST)):
        text = f"fraction of the molecules in the {name} split (default: the paper's, {fraction:.3g})"
        setting(f"--{split}-fraction", text, type=float, metavar="F")
        setting(f"--{split}-molecules", f"exact size of the {name} split, instead of a fraction", type=int, metavar="N")
    setting("--limit", "maximum number of lines to read from all inputs together (default: no limit)", type=int, metavar="N")
    setting("--piece-lines", "number of lines in a chunk, which one task processes")
    setting("--shard-molecules", "approximate number of molecules in a shard")
    for option in ("--desalt", "--neutralise"):  # of earlier versions
        add(option, action="store_true", help=argparse.SUPPRESS)


def _run_prepare(args: argparse.Namespace) -> None:
    from ..prepare.prepare import prepare
    from ..prepare.rejects import REJECTED

    no_options = ("command", "parser", "run", "resumes", "inputs", "output")
    options = {name: value for name, value in vars(args).items() if name not in no_options}
    manifest = prepare(args.inputs, args.output, progress=True, **options)
    splits = ", ".join(f"{split} {numbers['molecules']:,}" for split, numbers in manifest.splits.items())
    print(f"{args.output}: kept {manifest.counts['kept']:,} of {manifest.counts['read']:,} lines ({splits})")
    for reason, count in manifest.rejected.items():
        print(f"  rejected {count:,}: {reason}")
    if manifest.rejected:
        print(f"  all rejected lines are in {args.output}/{REJECTED}")
    empty = [one["file"] for one in manifest.inputs if not one["read"]]
    if empty and args.limit is None:
        print(f"  {len(empty):,} files contain only a header, for example {empty[0]}")
    for split in ("valid", "test"):
        if not manifest.splits[split]["molecules"]:
            print(f"  the {split} split is empty: set its size with --{split}-fraction or --{split}-molecules")
    if not manifest.splits["train"]["molecules"]:
        print("  the train split is empty: lower the sizes of the valid and the test split")


def _add_data_report(commands: Commands) -> None:
    from ..report import SAMPLE

    parser = commands.add_parser(
        "data-report",
        help="write an HTML page about prepared data",
        description="Writes one HTML page about a folder written by `nemo-cmim prepare`: "
        "counts, tranches, properties, tokens, rejected and kept molecules. The page can be viewed offline.",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="folder written by `nemo-cmim prepare`")
    add("-o", "--output", default="report.html", metavar="FILE", help="HTML file to write (default: %(default)s)")
    sample = f"maximum number of molecules whose weight and logP are computed (default: {SAMPLE:,})"
    add("--sample", type=int, default=SAMPLE, metavar="N", help=sample)
    add("--seed", type=int, default=0, help="seed of the sample (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run_data_report)


def _run_data_report(args: argparse.Namespace) -> None:
    from ..report.report import write_data_report

    write_data_report(args.folder, args.output, sample=args.sample, seed=args.seed, overwrite=args.overwrite)
    print(f"{args.output}: open it in a browser")


def _add_overlap(commands: Commands) -> None:
    parser = commands.add_parser(
        "overlap",
        help="count the molecules of a file that are in prepared data",
        description="Counts the molecules of FILE that are in each split of a folder written by `nemo-cmim prepare`, for example test "
        "molecules in the training data (leakage). Molecules are compared by canonical SMILES, with and without stereochemistry.",
    )
    add = parser.add_argument
    add("folder", metavar="DATA", help="folder written by `nemo-cmim prepare`")
    add("input", metavar="FILE", help=f"{FILES}; a URL; or - for standard input")
    add_read_options(add)
    add_standardise(add)
    invalid = (
        "what to do with invalid rows: raise = stop with an error, drop = skip them and report their number (default: %(default)s)"
    )
    add("--on-invalid", choices=("raise", "drop"), default="raise", help=invalid)
    add("--exact", action="store_true", help="skip the slow search for stereoisomers, which reads all of DATA")
    add("-o", "--output", metavar="FILE", help="CSV file to write the molecules found to")
    add("--overwrite", action="store_true", help="replace the CSV file if it exists")
    parser.set_defaults(run=_run_overlap)


def _run_overlap(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..outputs import check_file, write_file
    from ..report.overlap import find_overlap, read_smiles

    if args.output:
        check_file(args.output, overwrite=args.overwrite, others=[args.input, *Path(args.folder).glob("*")])
    lines, smiles = zip(*read_smiles(args.input, args.folder, read_options(args), on_invalid=args.on_invalid))
    with tqdm(unit=" molecules", unit_scale=True, desc="search", disable=True if args.exact else None) as bar:
        found = find_overlap(args.folder, smiles, standardise=args.standardise, stereo=not args.exact, progress=bar.update)
    same = {**found.same, "any split": found.anywhere(found.same)}
    plain = {**found.without_stereo, "any split": found.anywhere(found.without_stereo)} if found.without_stereo else {}
    print(f"Of {len(smiles):,} molecules of {args.input}, in {args.folder}:")
    for split, is_same in same.items():
        also = f", {plain[split].sum():,} without stereochemistry" if plain else ""
        print(f"  {split}: {is_same.sum():,} exact{also}")
    if args.output:
        with write_file(args.output, overwrite=args.overwrite) as staging, staging.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("line", "smiles", "split", "match"))
            for split, is_same in found.same.items():
                for row in (found.without_stereo or found.same)[split].nonzero()[0].tolist():
                    writer.writerow((lines[row], smiles[row], split, "same" if is_same[row] else "stereo"))
