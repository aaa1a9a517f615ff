"""Search for drug-like molecules that are similar to a seed: the task of MolMIM, QED of at least 0.9 and similarity of at least 0.4.

    python -m benchmarks.search [--record]

The seeds are the molecules with the lowest QED of a random sample of held-out molecules. CMA-ES is compared with random sampling at the
same budget (algorithm "none"), and with CMA-ES in the latent space of the same network with random weights. Seeds of random numbers are
fixed. The time is CPU time, which other load on the computer changes little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.fitted import add_model_options, command_line, fitted_model, set_defaults, with_random_weights
from benchmarks.report import record
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.fit_density import sample_molecules
from nemo_cmim.molecules import canonical_smiles, parse, qed
from nemo_cmim.optimization import SearchResult

SEED = 0
GOAL = 0.9
SIMILAR = 0.4
MOST_ATOMS = 60


class Outcome(NamedTuple):
    """What one way to search found.

    Attributes:
        results: The result for each seed molecule.
        seconds: CPU time, on all cores together.
    """

    results: Sequence[SearchResult]
    seconds: float


def low_qed(path: Path, model: CMIMModel, pool: int, count: int) -> list[str]:
    """Of a random sample of the molecules of a file, those with the lowest QED that the model can use, canonical SMILES."""
    sampled = sample_molecules([path], pool, seed=SEED)
    usable = sorted({canonical_smiles(smiles) for smiles in sampled if model.invalid_reason(smiles) is None})
    usable = [smiles for smiles in usable if parse(smiles).GetNumHeavyAtoms() <= MOST_ATOMS]
    return [usable[i] for i in np.argsort(qed(usable), kind="stable")[:count]]


def search(model: CMIMModel, molecules: Sequence[str], algorithm: str, args: argparse.Namespace, name: str) -> Outcome:
    """Optimises the QED of all molecules."""
    start = time.process_time()
    with tqdm(desc=name, total=args.evaluations * len(molecules), unit=" evaluations", unit_scale=True, disable=None) as bar:
        found = model.optimize(
            molecules, "QED", algorithm=algorithm, evaluations=args.evaluations, population=args.population, min_similarity=SIMILAR,
            scaled_radius=args.scaled_radius, seed=SEED, n=1, progress=lambda done, total: bar.update(done - bar.n),
        )  # fmt: skip
    return Outcome([result for result in found if result is not None], time.process_time() - start)


def row(name: str, outcome: Outcome) -> str:
    """A row of the table."""
    best = [result.molecules[0].score if result.molecules else float("nan") for result in outcome.results]
    gain = [max(0.0, score - result.seed_score) if score == score else 0.0 for score, result in zip(best, outcome.results)]
    evaluations = sum(result.evaluations for result in outcome.results)
    invalid = sum(result.dropped["invalid"] for result in outcome.results)
    dissimilar = sum(result.dropped["too dissimilar"] for result in outcome.results)
    found = np.isfinite(best)
    return (
        f"| {name} | {np.mean(np.greater_equal(best, GOAL)):.0%} | {found.mean():.0%} | {np.mean(gain):.3f} | "
        f"{np.nanmean(best) if found.any() else float('nan'):.3f} | {1 - invalid / evaluations:.1%} | "
        f"{(evaluations - invalid - dissimilar) / evaluations:.1%} | {outcome.seconds / len(outcome.results):.1f} |"
    )


def run(args: argparse.Namespace) -> list[str]:
    """Measures and returns the lines of the record."""
    started = time.process_time()
    model, which = fitted_model(args)
    molecules = low_qed(args.held_out, model, args.pool, args.molecules)
    lines = [
        f"| search | QED >= {GOAL} | similar molecule found | mean gain of QED | mean best QED | valid evaluations | similar evaluations | "
        "CPU seconds per molecule |",
        "|---|---|---|---|---|---|---|---|",
        row("CMA-ES", search(model, molecules, "CMA-ES", args, "CMA-ES")),
        row("random sampling", search(model, molecules, "none", args, "random sampling")),
    ]
    control = with_random_weights(args, SEED)
    few = molecules[:: -(-len(molecules) // args.control_molecules)]
    name = f"CMA-ES, random weights ({len(few)} of the seeds)"
    lines.append(row(name, search(control, few, "CMA-ES", args, name)))
    scores = qed(molecules)
    minutes = (time.process_time() - started) / 60
    return [
        *lines,
        "",
        f"Model {Path(args.model).stem}. {which} The {len(molecules)} molecules of lowest QED ({scores.min():.2f} to "
        f"{scores.max():.2f}) of {args.pool:,} of {args.held_out.name}, with at most {MOST_ATOMS} heavy atoms; "
        f"{args.evaluations:,} evaluations each, population {args.population}, radius {args.scaled_radius:g} times the spread.",
        "",
        f"All columns with QED are of molecules with a similarity of at least {SIMILAR} to the seed. The first is the fraction of "
        "seeds for which the best of them reaches the goal, the second the fraction for which there is one. The gain is 0 if there "
        "is none or if it is worse than the seed; the mean best QED is over seeds that have one. The density of the network with "
        f"random weights was fitted to {args.training_molecules:,} molecules. CPU time of the whole run: {minutes:.1f} minutes, all "
        "cores together.",
    ]


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_model_options(add)
    add(
        "--pool",
        type=int,
        default=10_000,
        metavar="N",
        help="held-out molecules that the seeds are chosen from (default: %(default)s)",
    )
    add("--molecules", type=int, default=20, metavar="N", help="number of seeds (default: %(default)s)")
    add("--evaluations", type=int, default=2000, metavar="N", help="evaluations for each seed (default: %(default)s)")
    add("--population", type=int, default=30, metavar="N", help="molecules of a step (default: %(default)s)")
    add("--scaled-radius", type=float, default=0.25, metavar="R", help="radius of the first step (default: %(default)s)")
    control = "seeds of the search with random weights, evenly spaced in QED: its SMILES are long and take three times as long"
    add("--control-molecules", type=int, default=5, metavar="N", help=f"{control} (default: %(default)s)")
    args = parser.parse_args()
    set_defaults(args)
    lines = run(args)
    print("\n".join(lines))
    if args.record:
        record("Search", command_line("search"), lines, seed=SEED)


if __name__ == "__main__":
    main()
