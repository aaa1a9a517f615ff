"""Tests whether the second letter of a tranche gives the logP of its molecules: RDKit's Crippen logP by letter.

python -m benchmarks.tranche_logp FOLDER_OF_TRANCHES [--record]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.report import record
from nemo_cmim import molecules
from nemo_cmim.tables.readers import find_layout, read_lines
from nemo_cmim.zinc.tranches import Tranche


def logps(folder: Path, every: int) -> dict[str, list[float]]:
    """LogP of each `every`-th molecule of the tranche files in a folder, by letter."""
    found: dict[str, list[float]] = defaultdict(list)
    with molecules.quiet_rdkit():
        for path in sorted(folder.rglob("*.smi")):
            tranche = Tranche.of_file(path)
            if tranche:
                lines = [
                    line
                    for number, line in enumerate(read_lines(path, find_layout(path)))
                    if number % every == 0 and not line.problem
                ]
                mols = (molecules.parse(line.smiles, quiet=False) for line in lines if molecules.is_valid(line.smiles))
                found[tranche.code[1]] += map(molecules.logp, mols)
    return found


def main() -> None:
    """Counts and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of ZINC tranches")
    parser.add_argument("--every", type=int, default=10, metavar="N", help="use each N-th molecule (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    lines = ["| letter | logP of the tranche | molecules | in this range | largest | above 5 |", "|---|---|---|---|---|---|"]
    for letter, found in sorted(logps(args.folder, args.every).items()):
        low, high = Tranche(f"A{letter}AA").logp
        values = np.array(found)
        within = np.mean((values > low) & (values <= high))
        lines.append(
            f"| {letter} | {low:g} to {high:g} | {len(values):,} | {within:.2%} | {values.max():.3f} | {np.sum(values > 5)} |"
        )
    print("\n".join(lines))
    if args.record:
        record("Tranche letters and logP", "python -m benchmarks.tranche_logp FOLDER_OF_TRANCHES --record", lines)


if __name__ == "__main__":
    main()
