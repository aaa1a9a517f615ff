"""Number of tokens per molecule and padded length of micro-batches in buckets, as used in docs/scaling.md.

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
from nemo_cmim.markdown import markdown_table
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.token_store import TokenStore

BATCHES, BUCKETS = (64, 128, 256), (1, 2, 4, 8)


def padded(lengths: NDArray[np.int32], batch_size: int, buckets: int) -> float:
    """Mean over molecules of the length that they are padded to in random micro-batches."""
    batches = min(200, len(lengths) // batch_size)
    sample = np.random.default_rng(0).permutation(lengths)[: batches * batch_size].reshape(batches, batch_size)
    parts = np.array_split(np.sort(sample, axis=1), buckets, axis=1)
    return float(np.mean(np.concatenate([np.broadcast_to(part[:, -1:], part.shape) for part in parts], axis=1)))


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
            f"{np.percentile(lengths, 95):.0f}, longest {lengths.max()}. Tokens per molecule with padding, by buckets:",
            "",
            markdown_table(
                ["molecules in a micro-batch", *(f"buckets: {buckets}" for buckets in BUCKETS)],
                [[str(size), *(f"{padded(lengths, size, buckets):.1f}" for buckets in BUCKETS)] for size in BATCHES],
            ),
        ]
    print("\n".join(lines))
    if args.record:
        record("Padding", f"python -m benchmarks.padding{f' {args.file.name}' if args.file else ''} --record", lines, seed=0)


if __name__ == "__main__":
    main()
