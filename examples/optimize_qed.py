"""Searches for more drug-like molecules that stay similar to a given one: `python examples/optimize_qed.py SMILES`, some minutes.

CMA-ES in the latent space maximises QED among molecules with a Tanimoto similarity of at least 0.4 to the seed, the task of MolMIM.
Prints the best molecules, and writes the score over evaluations and a picture of the molecules. If the model file has no density of
latents, one is fitted to molecules of MOSES first (`nemo-cmim fit-prior` keeps it in a file).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from nemo_cmim.inference import CMIMModel, list_models
from nemo_cmim.inference.fit_density import fit_density, sample_molecules
from nemo_cmim.inference.shipped import model_file_of


def molecules_of_moses() -> Path:
    """The test molecules of MOSES, in the package molsets, whose code is not imported."""
    package = importlib.util.find_spec("moses")
    if package is None or package.origin is None:
        sys.exit("Pass molecules with --training, or run `pip install --no-deps molsets==0.3.1`.")
    return Path(package.origin).with_name("dataset") / "data" / "test.csv.gz"


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("smiles", nargs="?", default="CC(=O)c1ccccc1OCCSc1nnc2cc(C)nc(C)n12", help="the seed (default: %(default)s)")
    add("--model", default=list_models()[0], help="shipped model or .nemo file (default: %(default)s)")
    add("--training", help="file of molecules for the density (default: MOSES' test set)")
    add("--evaluations", type=int, default=2000, help="molecules that are scored (default: %(default)s)")
    add("--radius", type=float, default=0.25, help="size of the first steps, 1 = spread of all molecules (default: %(default)s)")
    add("--output", default=".", type=Path, help="folder of the two pictures (default: the current one)")
    args = parser.parse_args()
    content = model_file_of(args.model)
    if content.density is None:
        content = fit_density(content, sample_molecules([args.training or molecules_of_moses()], 20_000), device="cpu")
    [result] = CMIMModel(content, "cpu").optimize(
        [args.smiles], "QED", min_similarity=0.4, evaluations=args.evaluations, scaled_radius=args.radius, seed=0
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
