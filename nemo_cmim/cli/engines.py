"""`nemo-cmim export-onnx`."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .commands import Commands
from .messages import with_options
from .reading import FILES, add_read_options

if TYPE_CHECKING:  # with torch
    from ..inference.engines.export import Measured
    from ..inference.model_file import ModelFile

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Adds the command to the command line."""
    about = (
        "Writes a model as ONNX graphs, which `nemo-cmim embed --engine onnx` and `nemo_cmim.load` use without PyTorch. Vectors are first "
        "compared with those of PyTorch; if one of them differs too much, nothing is written."
    )
    parser = commands.add_parser(
        "export-onnx", help="write a model for ONNX Runtime (requires the [onnx] extra)", description=about
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="name of a shipped model, or path of a .nemo file")
    add("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    add("--int8", action="store_true", help="also write graphs that multiply integers of 8 bits, for the engine onnx-int8")
    cosine = "smallest cosine similarity of a vector to that of PyTorch (default: 0.999999)"
    add("--min-cosine", type=float, metavar="C", help=cosine)
    add("--min-cosine-int8", type=float, metavar="C", help="the same for the engine onnx-int8 (default: 0.998)")
    check = (
        "molecules with a measured property: also report the error of ridge regression on the vectors of PyTorch and of each engine"
    )
    add("--check", metavar="FILE", help=f"{check}; {FILES}")
    add("--target", default="target", metavar="COLUMN", help="column of the measured values, for --check (default: %(default)s)")
    add_read_options(add)
    add("--overwrite", action="store_true", help="replace the files of an earlier export; other files in the folder are kept")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..inference.engines import INT8, ONNX
    from ..inference.engines.export import COSINES, export_engine
    from ..inference.shipped import model_file_of

    given = {ONNX: args.min_cosine, INT8: args.min_cosine_int8}
    for engine, cosine in given.items():
        if cosine is not None and not -1 <= cosine <= 1:
            raise ConfigError(f"The smallest cosine similarity for {engine} must be a number from -1 to 1, found {cosine}.")
    if given[INT8] is not None and not args.int8:
        raise ConfigError("--min-cosine-int8 has no effect without --int8. Leave it out, or add --int8.")
    content = model_file_of(args.model)
    reports = export_engine(
        content,
        args.output,
        name=args.model,
        engines=(ONNX, INT8) if args.int8 else (ONNX,),
        cosines={engine: COSINES[engine] if cosine is None else cosine for engine, cosine in given.items()},
        measured=_measured(args, content) if args.check else None,
        overwrite=args.overwrite,
    )
    for engine, report in reports.items():
        print(f"{engine}: {report.bytes / 1e6:.1f} MB, compared with PyTorch:")
        for kind, found in report.fidelity.items():
            print(
                f"  {kind}: cosine similarity at least {found.smallest_cosine:.7f}, {found.mean_cosine:.7f} on average; numbers differ by "
                f"at most {found.largest_difference:.2g}"
            )
        for kind, (of_torch, of_engine) in report.rmse.items():
            print(
                f"  {kind}: RMSE of {args.target} with ridge regression {of_engine:.4g}, with the vectors of PyTorch {of_torch:.4g}"
            )


def _measured(args: argparse.Namespace, content: ModelFile) -> Measured:
    from ..downstream import load_csv
    from ..inference.engines.export import Measured
    from ..inference.model import CMIMModel

    data = load_csv(
        args.check, args.smiles, args.target, on_invalid="drop", invalid_reason=CMIMModel(content, "cpu").invalid_reason,
        delimiter=args.delimiter, header=args.header, wording=partial(with_options, parser=args.parser),
    )  # fmt: skip
    return Measured(f"{data.name}, {args.target}", data.smiles, data.targets)
