"""Speed of one data worker, with shuffling, for splits of 1 million to 10 billion molecules.

    python -m benchmarks.reading [--record]

The splits are simulated: their shards are hard links to one shard of made-up molecules, with lengths as in ZINC. The files are therefore
cached in memory, and the disk is not measured. Permutation, lookups and number of shards are as for real splits. The baseline is
Megatron's IndexedDataset with torch's RandomSampler, on the same million molecules. The HTTP server runs in another local process.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.report import record
from benchmarks.shard_folder import describe_shards
from nemo_cmim.config import DataConfig
from nemo_cmim.loader.dataset import make_loader
from nemo_cmim.store.shards import write_shard
from nemo_cmim.tokenizers import Vocabulary, shipped_vocabulary
from nemo_cmim.tokenizers.collate import collate

MILLION = 1_000_000
SIZES = (  # molecules, and molecules per shard
    (MILLION, MILLION),
    (100 * MILLION, MILLION),
    (730 * MILLION, MILLION),
    (10_000 * MILLION, MILLION),
    (10_000 * MILLION, 4 * MILLION),
)
BATCH, WINDOW = 1024, 64
BATCHES = 2 * WINDOW  # per measurement: with blocks, two windows
BLOCK = 4096
PRESET = (2048, 8)  # run=molmim_70m_h100: molecules of a micro-batch, and data-parallel ranks


def write_made_up(folder: Path, molecules: int) -> dict[int, int]:
    """Writes made-up molecules to `shard.bin` and `shard.idx`; returns the number of molecules by number of tokens."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lengths = rng.normal(44, 9, molecules).round().clip(8, 90).astype(np.int64)
    write_shard(folder / "shard", rng.integers(6, 523, int(lengths.sum()), np.uint16), lengths, len(shipped_vocabulary()))
    return {length: int(count) for length, count in enumerate(np.bincount(lengths)) if count}


def write_folder(folder: Path, shard: Path, lengths: dict[int, int], molecules: int, of_shard: int) -> Path:
    """Writes a token store of `molecules` molecules whose shards are links to one shard."""
    folder.mkdir()
    names = [f"train-{number:05}" for number in range(molecules // of_shard)]
    for kind in ("bin", "idx"):
        for name in names:
            os.link(shard / f"shard.{kind}", folder / f"{name}.{kind}")
    of_all = {length: count * len(names) for length, count in lengths.items()}
    describe_shards(folder, [(name, of_shard) for name in names], of_all, checksums=False)
    return folder


class Rate(NamedTuple):
    """Molecules per second, and private memory and page tables of the reading process in MB."""

    molecules: float
    private: float
    page_tables: float


def memory(pid: int | str) -> tuple[float, float]:
    """Private memory and page tables of a process, in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(int(kilobytes) for kilobytes in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", rollup, re.MULTILINE))
    tables = re.search(r"^VmPTE:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert tables is not None
    return private / 1024, int(tables[1]) / 1024


def rate(loader: DataLoader[Any], batch: int = BATCH) -> Rate:
    """Molecules per second after the first batch of `batch` molecules; memory at the end."""
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    seconds = time.perf_counter() - start
    workers = getattr(batches, "_workers", None)
    return Rate(BATCHES * batch / seconds, *memory(workers[0].pid if workers else "self"))


def ours(
    folder: Path | str, molecules: int, rng: np.random.Generator, workers: int, block: int = 1, batch: int = BATCH, ranks: int = 1
) -> tuple[float, DataLoader[Any]]:
    """Seconds to the first batch of a rank in this process, at a random step of the third epoch; and a loader that starts there."""
    step = int((2 + rng.random() / 2) * molecules / batch / ranks)
    config = DataConfig(folder=str(folder), batch_size=batch, workers=0, shuffle_block=block)
    start = time.perf_counter()
    next(iter(make_loader(config, steps=step + 1, start_step=step, ranks=ranks)))
    first = time.perf_counter() - start
    config = DataConfig(folder=str(folder), batch_size=batch, workers=workers, shuffle_block=block)
    return first, make_loader(config, steps=step + BATCHES + WINDOW, start_step=step, ranks=ranks)


def row(name: str, folder: Path | str, molecules: int, repeats: int, block: int = 1, batch: int = BATCH, ranks: int = 1) -> str:
    """One row of the table."""
    rng = np.random.default_rng(0)
    in_process: list[Rate] = []
    from_worker: list[Rate] = []
    firsts = []
    for _ in range(repeats):
        for workers, rates in ((0, in_process), (1, from_worker)):
            first, loader = ours(folder, molecules, rng, workers, block, batch, ranks)
            rates.append(rate(loader, batch))
            firsts.append(first)
    inside, worker = (Rate(*(statistics.median(field) for field in zip(*rates))) for rates in (in_process, from_worker))
    return (
        f"| {name} | {worker.molecules:,.0f} | {inside.molecules:,.0f} | {statistics.median(firsts):.2f} s | {worker.private:.0f} MB | "
        f"{worker.page_tables:.1f} MB |"
    )


def megatrons(folder: Path, vocabulary: Vocabulary) -> DataLoader[Any]:
    """Megatron's dataset of the same million molecules, shuffled by torch, with our collate function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.indexed_dataset import IndexedDataset
    dataset: Any = IndexedDataset(str(folder / "train-00000"))
    return DataLoader(
        dataset,
        BATCH,
        sampler=RandomSampler(dataset),
        num_workers=1,
        collate_fn=lambda rows: collate(rows, vocabulary),
        drop_last=True,
    )


def against_megatron(folder: Path, repeats: int) -> str:
    """Speed relative to Megatron's dataset, measured alternately."""
    rng, pairs = np.random.default_rng(0), []
    for _ in range(repeats):
        pairs.append((rate(megatrons(folder, shipped_vocabulary())), rate(ours(folder, MILLION, rng, 1)[1])))
    theirs, mine = (statistics.median(r.molecules for r in rates) for rates in zip(*pairs))
    ratio = statistics.median(own.molecules / peer.molecules for peer, own in pairs)
    return (
        f"Megatron's IndexedDataset with RandomSampler, 1 million molecules, one worker: {theirs:,.0f} molecules/s; ours {mine:,.0f}, "
        f"{ratio:.2f}x ({statistics.median(peer.private for peer, _ in pairs):.0f} MB and "
        f"{statistics.median(own.private for _, own in pairs):.0f} MB of private memory). Calculated, not measured: the list of "
        f"730 million indices of RandomSampler needs {730e6 * 40 / 1e9:.0f} GB (8 bytes per entry and 32 per integer), a numpy array "
        f"{730e6 * 8 / 1e9:.1f} GB."
    )


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """URL of a folder, served by another process."""
    command = [sys.executable, "-m", "benchmarks.range_server", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="number of measurements (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    lines = [
        "| molecules | molecules/s, one worker | molecules/s, no worker | first batch after resuming | private memory of the worker "
        "| page tables of the worker |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        lengths = {of_shard: write_made_up(root / str(of_shard), of_shard) for of_shard in sorted({size[1] for size in SIZES})}
        folders = {}
        for size in SIZES:
            molecules, of_shard = size
            folders[size] = write_folder(root / f"{molecules}_{of_shard}", root / str(of_shard), lengths[of_shard], *size)
            lines.append(row(f"{molecules:,} in {molecules // of_shard:,} shards", folders[size], molecules, args.repeats))
            print(lines[-1], flush=True)
        last, paper, some = SIZES[-2], SIZES[2], SIZES[1]
        preset = f"{paper[0]:,}, one of {PRESET[1]} ranks, micro-batch {PRESET[0]}, shuffle_block={BLOCK}"
        lines.append(row(preset, folders[paper], paper[0], args.repeats, BLOCK, *PRESET))
        lines.append(row(f"{last[0]:,}, shuffle_block={BLOCK}", folders[last], last[0], args.repeats, BLOCK))
        with served(folders[some]) as url:
            lines.append(row(f"{some[0]:,} over HTTP, shuffle_block={BLOCK}", url, some[0], args.repeats, BLOCK))
        lines += [
            "",
            f"{BATCHES} batches of {BATCH:,}, from a random step of the third epoch; medians of {args.repeats} repeats. "
            "Target: at least 20,000 molecules/s from one worker, for all sizes. The row with 8 ranks is the preset `run=molmim_70m_h100`, "
            "for which `nemo-cmim plan` predicts 32,000 molecules/s on a GPU: its two workers must give that.",
            "",
            against_megatron(folders[SIZES[0]], args.repeats),
        ]
    print("\n".join(lines))
    if args.record:
        record("Reading", "python -m benchmarks.reading --record", lines, seed=0)


if __name__ == "__main__":
    main()
