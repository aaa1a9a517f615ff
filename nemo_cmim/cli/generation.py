"""`nemo-cmim decode | sample | interpolate`."""

from __future__ import annotations

import argparse
import sys

from .commands import Commands
from .generated import add_decoding, add_outputs, check_effect, chosen, print_streamed, stream_options
from .output import progress_bar, say
from .reading import FILES, add_model, add_precision, add_read_options, add_standardise, add_text_options, read_options

__all__ = ["add_commands"]

_SAMPLING = (
    "seed", "scaled_radius", "unit", "density", "beam_size", "temperature", "top_k", "top_p", "grammar", "must_contain", "unique",
    "valid_only", "attempts", "max_tokens",
)  # fmt: skip
_AROUND = ("smiles", "delimiter", "header", "standardise", "on_invalid", "rejects", "scaled_radius", "unit")


def add_commands(commands: Commands) -> None:
    """Adds the commands of this module to the command line."""
    _add_decode(commands)
    _add_sample(commands)
    _add_interpolate(commands)


def _add_decode(commands: Commands) -> None:
    about = (
        "Decodes each latent of a file, such as the output of `nemo-cmim embed --kind mean`. Adds the column `smiles`, or `decoded` if the "
        "file has a column of SMILES. All other columns and the order of the rows are kept."
    )
    parser = commands.add_parser("decode", help="decode latents to SMILES", description=about)
    add = parser.add_argument
    latents = (
        "latents: .npy, .npz, .parquet (column `embedding`) or .csv (columns e0, e1, ...), also compressed; a URL; or - for stdin"
    )
    add("latents", metavar="LATENTS", help=latents)
    add_outputs(add, smi=True)
    add_model(add)
    add_precision(add)
    add_decoding(add)
    best = "SMILES for each latent, each in a row of its own with its `rank`: the best of the beam, or so many draws (default: 1)"
    add("--n-best", type=int, default=1, metavar="N", help=best)
    add("--seed", type=int, metavar="N", help="seed of the draws with --temperature (default: different in each call)")
    parser.set_defaults(run=_run_decode)


def _run_decode(args: argparse.Namespace) -> None:
    from ..generation import DecodingSettings
    from ..inference.shipped import resolve
    from ..streaming.decode import decode_file

    names = ("beam_size", "temperature", "top_k", "top_p", "n_best", "grammar", "max_tokens", "seed")
    settings = DecodingSettings(**chosen(args, names))
    model = resolve(args.model, args.device, args.precision, "torch")
    with progress_bar("decode", "rows") as show:
        done, column = decode_file(model, args.latents, args.output, settings=settings, options=stream_options(args, show))
    print_streamed(args.output, done)
    if column != "smiles":
        print(f"The input has a column of SMILES; the new column is called {column!r}.", file=sys.stderr)


def _add_sample(commands: Commands) -> None:
    about = (
        "Samples new molecules. With INPUT, N around each molecule of the file: its columns are repeated, and `sample` (1 to N) and "
        "`generated` are added. Without INPUT, N from the density of the latents of all molecules."
    )
    parser = commands.add_parser("sample", help="sample new molecules, around given ones or from nothing", description=about)
    add = parser.add_argument
    add("input", nargs="?", metavar="INPUT", help=f"{FILES}; a URL; or - for standard input (default: none)")
    add_outputs(add, smi=True)
    add_read_options(add)
    add_standardise(add)
    add_model(add)
    add("-n", type=int, default=1, metavar="N", help="number of molecules; with INPUT, around each molecule (default: %(default)s)")
    radius = "standard deviation of the noise around a molecule, in --unit; 0 gives reconstructions (default: 0.25)"
    add("--scaled-radius", type=float, metavar="R", help=radius)
    unit = (
        "unit of the radius: spread = of the latents of all molecules, posterior = standard deviations of the posterior of the molecule, "
        "absolute = numbers of the latent (default: spread)"
    )
    add("--unit", choices=("spread", "posterior", "absolute"), help=unit)
    density = (
        "without INPUT, distribution of the latents: aggregated = fitted by `fit-prior`, normal = N(0, I) (default: aggregated)"
    )
    add("--density", choices=("aggregated", "normal"), help=density)
    add_decoding(add)
    substructure = "keep only molecules with this substructure; can be repeated: with all of them"
    add("--must-contain", action="append", metavar="SMARTS", help=substructure)
    add("--unique", action="store_true", help="keep only different molecules")
    add("--valid-only", action="store_true", help="keep only molecules that RDKit can parse")
    attempts = "draw up to M * N latents to replace molecules that are not kept; there may be fewer than N in the end (default: 20)"
    add("--attempts", type=int, metavar="M", help=attempts)
    add("--seed", type=int, metavar="N", help="seed of the noise (default: different in each call)")
    parser.set_defaults(run=_run_sample)


def _run_sample(args: argparse.Namespace) -> None:
    from ..inference.shipped import resolve
    from ..streaming.sample import sample_around, sample_density

    if args.input is None:
        check_effect(args, _AROUND, "without INPUT")
    else:
        check_effect(args, ("density",), "with INPUT, around whose molecules samples are drawn")
    settings = chosen(args, _SAMPLING)
    model = resolve(args.model, args.device, engine="torch")
    with progress_bar("sample", "molecules" if args.input is None else "rows") as show:
        options = stream_options(args, show)
        if args.input is None:
            count = sample_density(model, args.output, args.n, options=options, **settings)
        else:
            done = sample_around(
                model,
                args.input,
                args.output,
                args.n,
                standardise=args.standardise,
                read=read_options(args),
                options=options,
                **settings,
            )
    if args.input is None:
        say(args.output, f"{count:,} rows")
    else:
        print_streamed(args.output, done)


def _add_interpolate(commands: Commands) -> None:
    about = (
        "Decodes latents on the line between the latents of two molecules, both ends included. The two are A and B, or those of each row "
        "of a file, whose columns are repeated. Adds `step` (from 1) and `generated`."
    )
    parser = commands.add_parser("interpolate", help="molecules between two molecules", description=about)
    add = parser.add_argument
    add("input", metavar="A|INPUT", help=f"SMILES of the first molecule; or a file: {FILES}; a URL; or - for standard input")
    add("end", nargs="?", metavar="B", help="SMILES of the last molecule")
    columns = "name of the column of INPUT with the {} molecules, or its number, counted from 1"
    add("--from", dest="smiles", metavar="COLUMN", help=columns.format("first"))
    add("--to", dest="to", metavar="COLUMN", help=columns.format("last"))
    add_outputs(add, smi=True)
    add_text_options(add, "--from and --to are then numbers")
    add_standardise(add)
    add_model(add)
    add("--steps", type=int, default=10, metavar="N", help="number of molecules, with both ends (default: %(default)s)")
    add("--spherical", action="store_true", help="on a great circle instead of a straight line")
    add("--unique", action="store_true", help="leave out repeats")
    add("--max-tokens", type=int, metavar="N", help="maximum number of tokens of a SMILES (default: that of the model)")
    parser.set_defaults(run=_run_interpolate)


def _run_interpolate(args: argparse.Namespace) -> None:
    from ..errors import ConfigError
    from ..inference.shipped import resolve
    from ..streaming.interpolate import interpolate_file, interpolate_pair
    from ..tables.detection import FORMATS, format_of

    if {args.end is None} != {args.smiles is not None, args.to is not None}:
        raise ConfigError("interpolate needs two SMILES, or one file with --from COLUMN and --to COLUMN.")
    if args.end is not None:
        check_effect(args, ("delimiter", "header", "on_invalid", "rejects"), "on two SMILES")
        for text in (args.input, args.end):
            if format_of(text) in FORMATS:
                raise ConfigError(
                    f"{text} is a file, not a SMILES. Pass two SMILES, or only the file with --from COLUMN and --to COLUMN."
                )
    settings = chosen(args, ("steps", "spherical", "unique", "max_tokens", "standardise"))
    model = resolve(args.model, args.device, engine="torch")
    with progress_bar("interpolate", "pairs" if args.end is None else "molecules") as show:
        options = stream_options(args, show)
        if args.end is None:
            done = interpolate_file(
                model, args.input, args.output, args.smiles, args.to, read=read_options(args), options=options, **settings
            )
        else:
            count = interpolate_pair(model, args.input, args.end, args.output, options=options, **settings)
    if args.end is None:
        print_streamed(args.output, done)
    else:
        say(args.output, f"{count:,} rows")
