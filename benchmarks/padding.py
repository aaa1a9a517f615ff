"""Number of tokens per molecule and padded length of batches, as used in docs/scaling.md.

    python -m benchmarks.padding [FILE] [--record]

FILE contains SMILES in a format of `nemo-cmim prepare`; the default is the first 200,000 molecules of MOSES.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from nemo_cmim.loader.order import BatchOrder
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.token_store import TokenStore

BATCH, STEPS = 256, 64


def padded(lengths: NDArray[np.int32], ranks: int, window: int) -> float:
    """Mean over micro-batches of the length of the longest molecule."""
    order = BatchOrder(lengths, BATCH * ranks, window=window)
    batches = (
        order.members(step, rank, ranks).indices
        for step in range(min(STEPS, len(lengths) // (BATCH * ranks)))
        for rank in range(ranks)
    )
    return float(np.mean([lengths[batch].max() for batch in batches]))


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="file of SMILES (default: MOSES)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = args.file
        if source is None:
            source = folder / "moses.smi"
            source.write_text("\n".join(sample_smiles(200_000)) + "\n")
        prepare([source], folder / "data", progress=True)
        lengths = np.asarray(TokenStore.open(folder / "data", "train").lengths)
        lines = [
            f"{len(lengths):,} molecules: {lengths.mean():.1f} tokens on average, median {np.median(lengths):.0f}, 95 % at most "
            f"{np.percentile(lengths, 95):.0f}, longest {lengths.max()}. Batches of {BATCH}, sorted by length, are padded to "
            f"{padded(lengths, 1, 64):.1f} tokens on one rank and {padded(lengths, 64, 64):.1f} with 64 ranks; unsorted, to "
            f"{padded(lengths, 1, 1):.1f}."
        ]
    print(lines[0])
    if args.record:
        record("Padding", f"python -m benchmarks.padding{f' {args.file.name}' if args.file else ''} --record", lines, seed=0)


if __name__ == "__main__":
    main()
