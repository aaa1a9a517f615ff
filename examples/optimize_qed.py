"""Searches for more drug-like molecules that stay similar to a given one: `python examples/optimize_qed.py SMILES`.

CMA-ES in the latent space maximises QED among molecules with a Tanimoto similarity of at least 0.4 to the seed, the task of MolMIM.
Prints the best molecules, and writes the score over evaluations and a picture of the molecules. A model of your own needs a density of
latents: `nemo-cmim fit-prior`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nemo_cmim


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("smiles", nargs="?", default="CC(=O)c1ccccc1OCCSc1nnc2cc(C)nc(C)n12", help="the seed (default: %(default)s)")
    add("--model", default=nemo_cmim.list_models()[0], help="shipped model or .nemo file (default: %(default)s)")
    add("--evaluations", type=int, default=2000, help="molecules that are scored (default: %(default)s)")
    add(
        "--scaled-radius",
        type=float,
        default=0.25,
        help="size of the first steps, 1 = spread of all molecules (default: %(default)s)",
    )
    add("-o", "--output", default=".", type=Path, metavar="FOLDER", help="folder of the two pictures (default: the current one)")
    args = parser.parse_args()
    [result] = nemo_cmim.load(args.model, "cpu").optimize(
        [args.smiles], "QED", min_similarity=0.4, evaluations=args.evaluations, scaled_radius=args.scaled_radius, seed=0
    )
    assert result is not None, "an invalid SMILES has raised an error"
    print(result.explain())
    if result.molecules:
        print(result.to_frame()[["score", "similarity", "step", "smiles"]].to_string(index=False, float_format="{:.3f}".format))
        args.output.mkdir(parents=True, exist_ok=True)
        result.plot(args.output / "qed_plot.png")
        result.grid(args.output / "qed_grid.png", 5)


if __name__ == "__main__":
    main()
