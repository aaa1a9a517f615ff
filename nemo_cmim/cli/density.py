"""`nemo-cmim fit-prior`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from .commands import Commands
from .reading import FILES, add_read_options, read_options

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds the command to the command line."""
    about = (
        "Fits a density to the latents of molecules and writes the model with it to a new file. Samples without a seed molecule are drawn "
        "from it, and radii around molecules are in units of its spread. Vectors of the model do not change."
    )
    parser = commands.add_parser("fit-prior", help="fit the density of latents that sampling uses", description=about)
    add = parser.add_argument
    add("model", metavar="MODEL", help="name of a shipped model, or path of a .nemo file")
    add(
        "inputs",
        nargs="+",
        metavar="DATA",
        help=f"molecules like those of the training data: {FILES}; a URL; -; or a folder written by `nemo-cmim prepare`",
    )
    add("-o", "--output", required=True, metavar="FILE", help=".nemo file to write")
    add_read_options(add)
    count = "size of the random sample of DATA that is used (default: %(default)s)"
    add("--molecules", type=int, default=20_000, metavar="N", help=count)
    kernels = "number of molecules of a kernel density estimate: samples are around their latents (default: 1024)"
    add("--kernels", type=int, metavar="M", help=kernels)
    bandwidth = (
        "how far samples are from these latents, in units of the spread of all latents: small values give more valid molecules, which "
        "are closer to known ones (default: 0.25)"
    )
    add("--bandwidth", type=float, metavar="H", help=bandwidth)
    components = "fit a mixture of this number of Gaussians instead; 1: one Gaussian with a shrunk covariance matrix"
    add("--components", type=int, metavar="M", help=components)
    add("--seed", type=int, default=0, metavar="N", help="seed of the sample and of the fit (default: %(default)s)")
    add("--device", help="device of the network, for example cpu or cuda:0 (default: a GPU if there is one, else cpu)")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from ..inference.fit_density import fit_density, sample_molecules
    from ..inference.model_file import write_model_file
    from ..inference.shipped import model_file_of
    from ..outputs import check_file

    estimate = {name: getattr(args, name) for name in ("kernels", "bandwidth") if getattr(args, name) is not None}
    if args.components is not None and estimate:
        raise ConfigError(f"--{next(iter(estimate))} has no effect together with --components. Leave out one of them.")
    check_file(args.output, overwrite=args.overwrite, others=[args.model, *args.inputs])
    content = model_file_of(args.model)
    if len(args.inputs) == 1 and Path(args.inputs[0]).is_dir():
        smiles = _of_folder(args.inputs[0], args.molecules, args.seed)
    else:
        smiles = sample_molecules(args.inputs, args.molecules, options=read_options(args), seed=args.seed)
    with tqdm(total=len(smiles), unit=" molecules", unit_scale=True, desc="encode") as bar:
        fitted = fit_density(
            content, smiles, components=args.components, **estimate, seed=args.seed, device=args.device,
            progress=lambda done: bar.update(done - bar.n),
        )  # fmt: skip
    write_model_file(args.output, fitted)
    print(f"{args.output}: {args.model} with {fitted.density}, fitted to a sample of {len(smiles):,} rows")


def _of_folder(folder: str, molecules: int, seed: int) -> list[str]:
    """A random sample of the training split of a prepared folder."""
    import numpy as np

    from ..arguments import check_integer, check_seed
    from ..store.token_store import TokenStore
    from ..tokenizers import SmilesTokenizer

    check_integer("molecules", molecules)
    check_seed(seed)
    store = TokenStore.open(folder, "train")
    places = np.random.default_rng(seed).permutation(len(store))[:molecules]
    tokenizer = SmilesTokenizer(store.vocabulary)
    return [tokenizer.decode(tokens) for tokens in store.gather(np.sort(places))]
