"""Time of the canonical SMILES as a fixed point, against one pass of RDKit, for SMILES that are canonical and for some that are not.

    python -m benchmarks.canonical [--record]

The peer parses each SMILES and writes RDKit's canonical SMILES once. Both take turns, so that other load slows both; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

from rdkit import Chem

from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from benchmarks.timing import take_turns
from nemo_cmim.molecules import canonical_smiles, parse, quiet_rdkit, randomized_smiles


def one_pass(smiles: Sequence[str]) -> list[str]:
    """RDKit's canonical SMILES, each computed once."""
    return [Chem.MolToSmiles(parse(one, quiet=False)) for one in smiles]


def fixed_point(smiles: Sequence[str]) -> list[str]:
    """`canonical_smiles` of each."""
    return [canonical_smiles(one) for one in smiles]


def main() -> None:
    """Measures both kinds of SMILES."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=5_000, help="number of molecules (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    with quiet_rdkit():
        canonical = fixed_point(sample_smiles(args.molecules))
        inputs = {"canonical": canonical, "randomized": [randomized_smiles(one, 1, seed=7)[0] for one in canonical]}
        lines = ["| SMILES | fixed point, molecules/s | one pass, molecules/s | time / one pass |", "|---|---|---|---|"]
        for name, smiles in inputs.items():
            seconds = take_turns({"ours": partial(fixed_point, smiles), "peer": partial(one_pass, smiles)}, args.repeats)
            ours, peer = (statistics.median(seconds[who]) for who in ("ours", "peer"))
            lines.append(f"| {name} | {len(smiles) / ours:,.0f} | {len(smiles) / peer:,.0f} | {ours / peer:.2f} |")
    lines += ["", f"{args.molecules:,} molecules of MOSES, one thread, medians of {args.repeats} rounds."]
    print("\n".join(lines))
    if args.record:
        record("Canonical SMILES", "python -m benchmarks.canonical --record", lines, seed=7)


if __name__ == "__main__":
    main()
