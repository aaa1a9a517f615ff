"""Speed and memory of `nemo-cmim prepare`, compared with RDKit alone on the same molecules.

    python -m benchmarks.prepare FOLDER_OF_TRANCHES [--record]

The upper limit is a loop that only parses and writes SMILES with RDKit. One process is compared with it on some complete files,
alternately, in this process. Two processes are compared with one on a sample of each file, and then process the complete folder; these
are timed as commands, including start-up. The prediction for 730 million molecules is calculated from these numbers.
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
CHUNK = 100_000


class Run(NamedTuple):
    """One run of the command."""

    seconds: float
    peak: float  # GB, all processes together
    largest: float  # GB, largest process
    working: float  # peak size of the unfinished work, bytes
    manifest: dict[str, Any]
    output: Path


def sample(source: Path, target: Path, every: int) -> Path:
    """Writes a folder with the header and every n-th line of the tranche files."""
    target.mkdir()
    for path in sorted(source.rglob("*.smi")):
        lines = path.read_text().splitlines(keepends=True)
        (target / path.name).write_text("".join([lines[0], *lines[1::every]]))
    return target


def lines_of(path: Path) -> int:
    """Number of lines of a file."""
    return path.read_bytes().count(b"\n")


def is_last_bin(path: Path) -> bool:
    """Whether the tranche has letter J (logP 4.5 to 5), so that `prepare` computes logP."""
    return path.name[1] == "J"


def fraction_in_last_bin(folder: Path) -> float:
    """Fraction of the lines in tranches of letter J."""
    files = list(folder.rglob("*.smi"))
    return sum(map(lines_of, filter(is_last_bin, files))) / sum(map(lines_of, files))


def some_files(source: Path, target: Path, lines: int) -> Path:
    """Copies random tranche files with about `lines` lines and the same fraction of letter J as in the source."""
    target.mkdir()
    files = sorted(source.rglob("*.smi"))
    random.Random(0).shuffle(files)
    fraction = fraction_in_last_bin(source)
    wanted = {True: lines * fraction, False: lines * (1 - fraction)}
    for path in files:
        if 0 < lines_of(path) < 1.5 * wanted[is_last_bin(path)]:
            shutil.copy(path, target)
            wanted[is_last_bin(path)] -= lines_of(path)
    return target


def smiles_in(folder: Path) -> list[str]:
    """SMILES of all files."""
    return [line.split(" ", 1)[0] for path in sorted(folder.glob("*.smi")) for line in path.read_text().splitlines()[1:]]


def bare(smiles: list[str]) -> float:
    """Seconds that RDKit alone takes to parse and write the SMILES."""
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
    """Runs the command, and monitors the memory of its processes and the size of its unfinished work."""
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
        raise SystemExit(f"{' '.join(arguments)} failed with exit status {process.returncode}.")
    manifest = json.loads((output / "manifest.json").read_text())
    return Run(time.perf_counter() - start, peak / 1e9, largest / 1e9, working, manifest, output)


def bare_pair(smiles: list[str]) -> float:
    """Speed of two parallel RDKit loops relative to one."""
    alone = bare(smiles)
    with get_context("spawn").Pool(2) as pool:
        pool.map(bare, [smiles[:100]] * 2)
        together = pool.map(bare, [smiles] * 2)
    return 2 * alone / statistics.mean(together)


def against_rdkit(folder: Path, output: Path, repeats: int, last_bin: float) -> list[str]:
    """Compares one process with RDKit alone."""
    smiles = smiles_in(folder)
    prepared(folder, output)  # imports
    pairs = [(bare(smiles), prepared(folder, output)) for _ in range(repeats)]
    limit, ours = (statistics.median(seconds) for seconds in zip(*pairs))
    ratio = statistics.median(limit / ours for limit, ours in pairs)
    return [
        f"One process, {len(smiles):,} molecules of {len(list(folder.iterdir()))} complete files: RDKit alone "
        f"{len(smiles) / limit:,.0f} molecules/s, prepare {len(smiles) / ours:,.0f}: **{ratio:.0%} of RDKit alone** "
        f"(target: at least 70 %), median of {repeats} pairs. "
        f"logP is computed for letter J: {fraction_in_last_bin(folder):.1%} of these molecules, {last_bin:.1%} of all.",
    ]


def two_against_one(folder: Path, output: Path, repeats: int) -> list[str]:
    """Compares two processes with one, including start-up."""
    pairs, limits = [], []
    smiles = smiles_in(folder)[::8]
    for _ in range(repeats):
        pairs.append((command(folder, output, 1), command(folder, output, 2)))
        limits.append(bare_pair(smiles))
    ratio = statistics.median(one.seconds / two.seconds for one, two in pairs)
    lines = pairs[0][0].manifest["counts"]["read"]
    seconds = [statistics.median(run.seconds for run in runs) for runs in zip(*pairs)]
    return [
        f"Two processes, {lines:,} lines, complete command: {seconds[1]:.0f} s; one process {seconds[0]:.0f} s; **{ratio:.2f}x** "
        f"(target: at least 1.8x). Two parallel loops of RDKit alone reach {statistics.median(limits):.2f}x on this computer. "
        f"Median of {repeats} pairs.",
    ]


def complete_folder(folder: Path, output: Path) -> tuple[list[str], Run]:
    """Processes all lines with two processes."""
    run = command(folder, output, 2)
    counts, rejected = run.manifest["counts"], run.manifest["rejected"]
    splits = ", ".join(f"{split} {numbers['molecules']:,}" for split, numbers in run.manifest["splits"].items())
    size = sum(entry["bytes"] for entry in run.manifest["files"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
    return [
        f"All {counts['read']:,} lines of {len(run.manifest['inputs'])} files, two processes: {run.seconds:.0f} s "
        f"({counts['read'] / run.seconds:,.0f} lines/s); kept {counts['kept']:,} ({splits}); rejected {reasons}.",
        f"Peak memory {run.peak:.2f} GB in all processes together, {run.largest:.2f} GB in the largest. Output {size / 1e6:.0f} MB, "
        f"unfinished work at most {run.working / 1e6:.0f} MB, including the output.",
    ], run


def prediction(run: Run) -> list[str]:
    """Predicts time, memory and disk space for 730 million molecules."""
    lines = run.manifest["counts"]["read"]
    rate = lines / run.seconds / 2
    chunks = math.ceil(FULL / CHUNK)
    kept = FULL * run.manifest["counts"]["kept"] / lines
    size = sum(entry["bytes"] for entry in run.manifest["files"].values()) / lines * FULL
    working = run.working / lines * FULL
    rows = ["", f"| 730M lines, nodes of {CORES} cores | time | memory per node | disk |", "|---|---|---|---|"]
    for nodes in NODES:
        turns = math.ceil(chunks / (nodes * CORES))
        hours = turns * CHUNK / (rate * 0.9) / 3600
        disk = f"{size / 1e9:.0f} GB, {working / 1e9:.0f} GB while running"
        rows.append(f"| {nodes} | {hours:.2f} h | {run.largest * CORES:.0f} GB | {disk} |")
    openings, seconds = chunks * FULL / 1e6, opening()
    return [
        *rows,
        "",
        f"Predicted, not measured. Assumptions: {rate:,.0f} lines/s per core as above, including all stages, of which many cores keep "
        f"90 %; {chunks:,} chunks of {CHUNK:,} lines, each processed by one core; every process is as large as the largest above; the same "
        f"fraction of lines is kept ({kept / 1e6:.0f}M), with the same lengths; a shared disk that is fast enough; the time to start "
        "workers and distribute tasks is not included. "
        f"Each shard opens each chunk: {openings / 1e6:.1f}M times {seconds * 1e3:.2f} ms, or {openings * seconds / 3600:.1f} "
        f"of {FULL / rate / 3600:.0f} core-hours, which are not included in the table.",
    ]


def opening() -> float:
    """Seconds to open a chunk of 100,000 molecules."""
    import numpy as np
    import pyarrow

    from nemo_cmim.prepare.arrow import write_arrow
    from nemo_cmim.prepare.chunks import open_rows

    rows = np.arange(100_000)
    tokens = pyarrow.LargeListArray.from_arrays(np.arange(100_001) * 44, np.zeros(4_400_000, np.uint16))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.arrow"
        write_arrow(path, {"high": rows.astype(np.uint64), "low": rows.astype(np.uint64), "line": rows, "tokens": tokens})
        start = time.perf_counter()
        for _ in range(200):
            open_rows(path).high.searchsorted(7)
        return (time.perf_counter() - start) / 200


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of ZINC tranches (.smi, new style)")
    parser.add_argument("--repeats", type=int, default=3, help="number of pairs to measure (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        last_bin = fraction_in_last_bin(args.folder)
        lines = against_rdkit(some_files(args.folder, root / "small", 150_000), root / "out", args.repeats, last_bin)
        print(*lines, sep="\n", flush=True)
        lines += ["", *two_against_one(sample(args.folder, root / "middle", 15), root / "out", args.repeats)]
        print(lines[-1], flush=True)
        found, run = complete_folder(args.folder, root / "out")
        lines += ["", *found, *prediction(run)]
    print("\n".join(lines))
    if args.record:
        record("Preparing data", "python -m benchmarks.prepare FOLDER_OF_TRANCHES --record", lines)


if __name__ == "__main__":
    main()
