"""`nemo-cmim optimize | score`."""

from __future__ import annotations

import argparse
import sys

from .commands import Commands
from .generated import add_outputs, chosen, print_streamed, stream_options
from .output import progress_bar
from .reading import FILES, add_model, add_read_options, add_standardise, read_options

__all__ = ["add_commands"]

_INPUT = f"{FILES}; a URL; or - for standard input"
_SEARCH = (
    "objective", "plot", "grid", "algorithm", "maximize", "evaluations", "population", "scaled_radius", "unit", "min_similarity",
    "must_contain", "n", "temperature", "seed", "standardise",
)  # fmt: skip


def add_commands(commands: Commands) -> None:
    """Adds the commands of this module to the command line."""
    _add_optimize(commands)
    _add_score(commands)


def _add_optimize(commands: Commands) -> None:
    about = (
        "Searches the latent space for better molecules than each molecule of a file. Its columns are repeated, and these are added: "
        "`seed`, `seed_score`, `generated`, `score`, `similarity` (Tanimoto, Morgan fingerprints of radius 2, to the seed) and `step` "
        "(that found it). The best molecule comes first."
    )
    parser = commands.add_parser("optimize", help="search for better molecules", description=about)
    add = parser.add_argument
    add("input", metavar="INPUT", help=_INPUT)
    add_outputs(add, smi=True)
    add_read_options(add)
    add_standardise(add)
    add_model(add)
    objective = (
        "score of a molecule: QED, plogP (penalised logP), or a weighted sum such as QED:1,plogP:-0.1 (default: %(default)s)"
    )
    add("--objective", default="QED", metavar="NAME[:WEIGHT,...]", help=objective)
    add("--minimize", dest="maximize", action="store_const", const=False, help="search for low scores instead of high ones")
    add("--algorithm", choices=("CMA-ES", "none"), help="CMA-ES, or none = only samples around the molecule (default: CMA-ES)")
    add("--evaluations", type=int, metavar="N", help="molecules that are scored for each molecule of INPUT (default: 2000)")
    add("--population", type=int, metavar="N", help="molecules of a step of the search (default: 30)")
    radius = "standard deviation of the first step of the search, in --unit (default: 0.25)"
    add("--scaled-radius", type=float, metavar="R", help=radius)
    unit = "unit of the radius: spread = of the latents of all molecules, absolute = numbers of the latent (default: spread)"
    add("--unit", choices=("spread", "absolute"), help=unit)
    add("--min-similarity", type=float, metavar="S", help="minimum similarity to the molecule of INPUT, 0 to 1 (default: 0)")
    substructure = "keep only molecules with this substructure; can be repeated: with all of them"
    add("--must-contain", action="append", metavar="SMARTS", help=substructure)
    add("-n", type=int, metavar="N", help="maximum number of molecules to write for each molecule of INPUT (default: 10)")
    add("--temperature", type=float, metavar="T", help="draw tokens instead of greedy decoding (default: greedy)")
    add("--seed", type=int, metavar="N", help="seed of the search (default: different in each call)")
    add(
        "--plot", metavar="FILE", help="picture to write, .png or .svg: score over evaluations for the first molecule with a result"
    )
    add("--grid", metavar="FILE", help="picture to write, .png or .svg: the best molecules for the same molecule")
    parser.set_defaults(run=_run_optimize)


def _run_optimize(args: argparse.Namespace) -> None:
    from ..inference.shipped import resolve
    from ..streaming.optimize import optimize_file

    model = resolve(args.model, args.device, engine="torch")
    with progress_bar("optimize", "rows") as show:
        done, has_pictures = optimize_file(
            model, args.input, args.output, read=read_options(args), options=stream_options(args, show), **chosen(args, _SEARCH)
        )
    print_streamed(args.output, done)
    for path in (args.plot, args.grid):
        if path is not None:
            print(f"{path}: {'written' if has_pictures else 'not written, since nothing was found'}", file=sys.stderr)


def _add_score(commands: Commands) -> None:
    about = (
        "Adds the log-likelihood of each molecule of a file under the decoder, log p(x|z) in nats, as `log_p`, and its number of tokens as "
        "`tokens`. All columns and the order of the rows are kept."
    )
    parser = commands.add_parser("score", help="log-likelihood of molecules", description=about)
    add = parser.add_argument
    add("input", metavar="INPUT", help=_INPUT)
    add_outputs(add, smi=False)
    add_read_options(add)
    add_standardise(add)
    add_model(add)
    given = "molecule whose posterior mean is the latent z (default: the posterior mean of each molecule itself)"
    add("--given", metavar="SMILES", help=given)
    per_token = "also add `log_p_per_token`: a JSON list with a number for each token and one for the end"
    add("--per-token", action="store_true", help=per_token)
    parser.set_defaults(run=_run_score)


def _run_score(args: argparse.Namespace) -> None:
    from ..inference.shipped import resolve
    from ..streaming.score import score_file

    model = resolve(args.model, args.device, engine="torch")
    with progress_bar("score", "rows") as show:
        done = score_file(
            model, args.input, args.output, read=read_options(args), options=stream_options(args, show),
            **chosen(args, ("given", "per_token", "standardise")),
        )  # fmt: skip
    print_streamed(args.output, done)
