"""Speed and memory of `nemo-cmim prepare`, against RDKit alone on the same molecules.

    python -m benchmarks.prepare FOLDER_OF_TRANCHES [--record]

The limit is a bare loop of RDKit's parsing and writing. One process against it: some whole files, in turn, in this process. Two
processes against one, on a sample of each file, and the whole folder: the command, from its start to its end. The prediction for
730 million molecules is arithmetic on these numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import record

FULL = 730e6
NODES, CORES = (1, 16, 64), 64
PIECE = 100_000


class Run(NamedTuple):
    """One call of the command."""

    seconds: float
    peak: float  # GB, of all processes together
    largest: float  # GB, of the largest process
    working: float  # bytes of unfinished work at its largest
    manifest: dict[str, Any]
    output: Path


def sample(source: Path, target: Path, every: int) -> Path:
    """A folder with the header and each n-th line of the tranche files."""
    target.mkdir()
    for path in sorted(source.rglob("*.smi")):
        lines = path.read_text().splitlines(keepends=True)
        (target / path.name).write_text("".join([lines[0], *lines[1::every]]))
    return target


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return path.read_bytes().count(b"\n")


def is_last_bin(path: Path) -> bool:
    """The tranche is of letter J, logP 4.5 to 5: that of its molecules is computed."""
    return path.name[1] == "J"


def share_of_last_bin(folder: Path) -> float:
    """Share of the lines in tranches of letter J."""
    files = list(folder.rglob("*.smi"))
    return sum(map(lines_of, filter(is_last_bin, files))) / sum(map(lines_of, files))


def some_files(source: Path, target: Path, lines: int) -> Path:
    """A folder with whole tranche files, chosen at random, of at least so many lines, with as much of letter J as in all."""
    target.mkdir()
    files = sorted(source.rglob("*.smi"))
    random.Random(0).shuffle(files)
    share = share_of_last_bin(source)
    wanted = {True: lines * share, False: lines * (1 - share)}
    for path in files:
        if 0 < lines_of(path) < 1.5 * wanted[is_last_bin(path)]:
            shutil.copy(path, target)
            wanted[is_last_bin(path)] -= lines_of(path)
    return target


def smiles_in(folder: Path) -> list[str]:
    """The SMILES of all files."""
    return [line.split(" ", 1)[0] for path in sorted(folder.glob("*.smi")) for line in path.read_text().splitlines()[1:]]


def bare(smiles: list[str]) -> float:
    """Seconds of RDKit alone."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        start = time.perf_counter()
        for one in smiles:
            Chem.MolToSmiles(Chem.MolFromSmiles(one))
        return time.perf_counter() - start


def prepared(folder: Path, output: Path) -> float:
    """Seconds of `prepare` in this process, without imports."""
    from nemo_cmim.prepare.prepare import prepare

    start = time.perf_counter()
    prepare([folder], output, processes=1, progress=False, overwrite=True)
    return time.perf_counter() - start


def command(folder: Path, output: Path, processes: int) -> Run:
    """Calls the command, and watches the memory of all its processes and the size of its unfinished work."""
    import psutil

    arguments = [sys.executable, "-m", "nemo_cmim.cli", "prepare", str(folder), "-o", str(output), "--processes", str(processes)]
    start = time.perf_counter()
    process = subprocess.Popen([*arguments, "--overwrite"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = largest = working = 0.0
    unfinished = output.with_name(f".{output.name}.unfinished")
    while process.poll() is None:
        sizes = []
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            sizes = [one.memory_full_info().uss for one in family]
        except psutil.Error:
            pass
        peak, largest = max(peak, sum(sizes)), max(largest, *sizes, 0)
        working = max(working, sum(path.stat().st_size for path in unfinished.rglob("*") if path.exists()))
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}")
    manifest = json.loads((output / "manifest.json").read_text())
    return Run(time.perf_counter() - start, peak / 1e9, largest / 1e9, working, manifest, output)


def bare_pair(smiles: list[str]) -> float:
    """How many times the molecules per second of one bare loop two have that run beside each other."""
    alone = bare(smiles)
    with get_context("spawn").Pool(2) as pool:
        pool.map(bare, [smiles[:100]] * 2)
        together = pool.map(bare, [smiles] * 2)
    return 2 * alone / statistics.mean(together)


def against_rdkit(folder: Path, output: Path, repeats: int, last_bin: float) -> list[str]:
    """One process against the bare loop."""
    smiles = smiles_in(folder)
    prepared(folder, output)  # imports
    pairs = [(bare(smiles), prepared(folder, output)) for _ in range(repeats)]
    limit, ours = (statistics.median(seconds) for seconds in zip(*pairs))
    ratio = statistics.median(limit / ours for limit, ours in pairs)
    return [
        f"One process, {len(smiles):,} molecules of {len(list(folder.iterdir()))} whole files: RDKit alone {len(smiles) / limit:,.0f} "
        "molecules/s, prepare "
        f"{len(smiles) / ours:,.0f}: **{ratio:.0%} of the limit** (aim: at least 70 %), median of {repeats} pairs. "
        f"logP is computed for letter J, {share_of_last_bin(folder):.1%} of these molecules and {last_bin:.1%} of all.",
    ]


def two_against_one(folder: Path, output: Path, repeats: int) -> list[str]:
    """Two processes against one, starting them included."""
    pairs, limits = [], []
    smiles = smiles_in(folder)[::8]
    for _ in range(repeats):
        pairs.append((command(folder, output, 1), command(folder, output, 2)))
        limits.append(bare_pair(smiles))
    ratio = statistics.median(one.seconds / two.seconds for one, two in pairs)
    lines = pairs[0][0].manifest["counts"]["read"]
    seconds = [statistics.median(run.seconds for run in runs) for runs in zip(*pairs)]
    return [
        f"Two processes, {lines:,} lines, whole command: {seconds[1]:.0f} s against {seconds[0]:.0f} s of one, **{ratio:.2f}x** "
        f"(aim: at least 1.8x); two bare loops beside each other do {statistics.median(limits):.2f}x one, so much this machine gives. "
        f"Median of {repeats} pairs.",
    ]


def whole(folder: Path, output: Path) -> tuple[list[str], Run]:
    """All lines with two processes."""
    run = command(folder, output, 2)
    counts, rejected = run.manifest["counts"], run.manifest["rejected"]
    splits = ", ".join(f"{split} {numbers['molecules']:,}" for split, numbers in run.manifest["splits"].items())
    size = sum(entry["bytes"] for entry in run.manifest["files"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
    return [
        f"All {counts['read']:,} lines of {len(run.manifest['inputs'])} files, two processes: {run.seconds:.0f} s "
        f"({counts['read'] / run.seconds:,.0f} lines/s); kept {counts['kept']:,} ({splits}); rejected {reasons}.",
        f"Memory at most {run.peak:.2f} GB in all processes together, {run.largest:.2f} GB in the largest. Output {size / 1e6:.0f} MB, "
        f"unfinished work at its largest {run.working / 1e6:.0f} MB, output included.",
    ], run


def prediction(run: Run) -> list[str]:
    """The same for 730 million molecules, by arithmetic."""
    lines = run.manifest["counts"]["read"]
    rate = lines / run.seconds / 2
    pieces = math.ceil(FULL / PIECE)
    kept = FULL * run.manifest["counts"]["kept"] / lines
    size = sum(entry["bytes"] for entry in run.manifest["files"].values()) / lines * FULL
    working = run.working / lines * FULL
    rows = ["", f"| 730M lines, nodes of {CORES} cores | time | memory of a node | disk |", "|---|---|---|---|"]
    for nodes in NODES:
        turns = math.ceil(pieces / (nodes * CORES))
        hours = turns * PIECE / (rate * 0.9) / 3600
        disk = f"{size / 1e9:.0f} GB, {working / 1e9:.0f} GB while it runs"
        rows.append(f"| {nodes} | {hours:.2f} h | {run.largest * CORES:.0f} GB | {disk} |")
    openings, seconds = pieces * FULL / 1e6, opening()
    return [
        *rows,
        "",
        f"Predicted, not measured: {rate:,.0f} lines/s per core as above, all stages included, 90 % of it kept on many cores; "
        f"{pieces:,} pieces of {PIECE:,} lines, of which no core can do a part; each process as large as the largest above; the same "
        f"share of lines kept ({kept / 1e6:.0f}M), of the same length; one disk that all nodes see, fast enough; starting workers and "
        "handing out tasks left out. "
        f"Each shard opens each piece, {openings / 1e6:.1f}M openings of {seconds * 1e3:.2f} ms: {openings * seconds / 3600:.1f} "
        f"core-hours of {FULL / rate / 3600:.0f} in all, which are not in the table.",
    ]


def opening() -> float:
    """Seconds to open a piece of 100,000 molecules."""
    import numpy as np
    import pyarrow

    from nemo_cmim.prepare.chunks import open_rows, write_table

    rows = np.arange(100_000)
    tokens = pyarrow.LargeListArray.from_arrays(np.arange(100_001) * 44, np.zeros(4_400_000, np.uint16))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.arrow"
        write_table(path, {"high": rows.astype(np.uint64), "low": rows.astype(np.uint64), "line": rows, "tokens": tokens})
        start = time.perf_counter()
        for _ in range(200):
            open_rows(path).high.searchsorted(7)
        return (time.perf_counter() - start) / 200


def main() -> None:
    """Measures, prints, and keeps the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="ZINC tranches, .smi, new style")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the numbers in benchmarks/RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        last_bin = share_of_last_bin(args.folder)
        lines = against_rdkit(some_files(args.folder, root / "small", 150_000), root / "out", args.repeats, last_bin)
        print(*lines, sep="\n", flush=True)
        lines += ["", *two_against_one(sample(args.folder, root / "middle", 15), root / "out", args.repeats)]
        print(lines[-1], flush=True)
        found, run = whole(args.folder, root / "out")
        lines += ["", *found, *prediction(run)]
    print("\n".join(lines))
    if args.record:
        record("Preparing data", "python -m benchmarks.prepare FOLDER_OF_TRANCHES --record", lines)


if __name__ == "__main__":
    main()
