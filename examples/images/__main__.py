r"""The paper's image experiments (Sec. 3.1-3.6, D.1): which objective, at which batch size.

    python -m examples.images data                      # the image sets that can be read, and the files to download for the others
    python -m examples.images plan                      # measures steps, and prints the core-hours of the grid
    python -m examples.images grid --data images --processes 2 -o cells
    python -m examples.images tables --cells cells      # RESULTS.md, from the finished cells
    python -m examples.images figures --cells cells -o figures

Run from the root of the checkout. A cell is one training run with its evaluation; `train` runs a single one. `network` prints the number
of parameters. Each command has `--help`. The cells of the recorded grid, without weights, are in examples/images/cells:

    python -m examples.images tables --cells examples/images/cells

Ctrl-C, SIGTERM or SIGKILL can end `grid` at any time. Run it again to resume: finished cells are skipped, and the others continue from
their last validation. The weights of each finished cell are beside its JSON file; `examples.images.results.load_network` loads them.

The defaults are those of the recorded grid: six image sets, two seeds, 49 latent steps and limits on the number of images. The paper's
grid requires a GPU or a cluster:

    python -m examples.images grid --latents 400 --steps 1000000 --sets paper --fewer-sets paper --parts main ablations references \
        --seeds 1 --validations 1000 --valid-images 0 --train-images 0 --test-images 0 -o cells

On a cluster, start `dask scheduler` and `dask worker tcp://HOST:8786 --nthreads 1` in this checkout and add `--scheduler tcp://HOST:8786`;
all workers must see the folders of data and cells. With several GPUs, start one worker for each, with its own CUDA_VISIBLE_DEVICES. On
CPUs, start the workers with MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000: with Dask's default, a step of B = 200
takes almost twice as long.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nemo_cmim.losses import OBJECTIVES
from nemo_cmim.markdown import markdown_table

from . import plan
from .cell import ABLATIONS, MAIN, TAU, WEIGHT, Cell, Settings
from .data import DEFAULT_FOLDER, load_all
from .grid import Job, run_cell, run_grid
from .network import ImageNetwork, NetworkSizes
from .results import read_cells
from .sets import PAPER, SETS

ALL_OF_PAPER = "paper"
RESULTS = Path(__file__).with_name("RESULTS.md")
TABLES = "python -m examples.images tables"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m examples.images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], None], name: str, what: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        found.set_defaults(run=run)
        return found

    data = command(_data, "data", "list the image sets, check their files, and list the addresses of missing files")
    _add_data(data)
    _add_settings(command(_network, "network", "print the number of parameters of each objective's network"))
    one = command(_train, "train", "train and evaluate one cell")
    _add_run(one)
    _add_settings(one)
    _add_cell(one)
    many = command(
        _grid,
        "grid",
        "train and evaluate many cells on Dask; finished cells are skipped, interrupted and failed ones are run again",
    )
    _add_run(many)
    _add_settings(many)
    _add_grid(many)
    many.add_argument("--processes", type=int, metavar="N", help="processes on this machine, each with one thread (default: 1)")
    many.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler, instead of processes on this machine")
    cost = command(_plan, "plan", "measure the time of a step with one thread of this CPU, and print the core-hours of a grid")
    _add_settings(cost)
    _add_grid(cost)
    cost.add_argument("--seconds", type=float, default=1.0, help="core-seconds of each measurement (default: %(default)s)")
    tables = command(_tables, "tables", "write the tables of finished cells into RESULTS.md; text in other sections is kept")
    _add_cells(tables)
    tables.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FILE", help="file to write (default: examples/images/RESULTS.md)"
    )
    figures = command(_figures, "figures", "draw the figures of finished cells")
    _add_cells(figures)
    figures.add_argument(
        "-o", "--output", type=Path, default=Path("figures"), metavar="FOLDER", help="folder of the figures (default: %(default)s)"
    )
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="folder of the image sets (default: %(default)s)"
    )


def _add_cells(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cells", type=Path, default=Path("cells"), metavar="FOLDER", help="output of `grid` (default: %(default)s)"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("cells"), metavar="FOLDER", help="folder of the cells (default: %(default)s)"
    )
    text = "device of the networks; auto: a GPU if there is one, else the CPU (default: %(default)s)"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=text)


def _add_cell(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--set", required=True, choices=SETS, metavar="NAME", help="image set; `data` lists the names")
    add("--objective", required=True, choices=(*MAIN, *ABLATIONS), help="objective")
    add("--batch-size", type=int, required=True, metavar="B", help="images in a batch")
    add("--seed", type=int, default=0, help="seed of weights, order, augmentation, noise and classifiers (default: %(default)s)")
    add("--tau", type=float, default=TAU, help="temperature of contrastive terms (default: %(default)s)")
    add("--weight", type=float, default=WEIGHT, help="weight of the contrastive term (default: %(default)s)")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group, default = parser.add_argument_group("settings of all cells"), Settings()
    add = partial(group.add_argument, type=int, metavar="N")
    add("--latents", default=default.sizes.latents, help="steps of the latent array; 400 in the paper (default: %(default)s)")
    text = "factor of the first weights of the queries that attend to the input; not in the paper (default: %(default)s)"
    add("--query-scale", type=float, metavar="X", default=default.sizes.query_scale, help=text)
    text = "training steps, the same for all batch sizes; 1,000,000 in the paper (default: %(default)s)"
    add("--steps", default=default.steps, help=text)
    add("--validations", default=default.validations, help="number of validations of a run (default: %(default)s)")
    for part, images in (("valid", "validation images"), ("train", "training images of the classifiers"), ("test", "test images")):
        text = f"maximum number of {images}; 0: all (default: %(default)s)"
        add(f"--{part}-images", default=getattr(default, f"{part}_images"), help=text)
    add("--mlp-steps", default=default.mlp_steps, help="updates of the MLP classifier (default: %(default)s)")


def _add_grid(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cells of the grid", plan.__doc__)

    def add(name: str, default: Sequence[str | int], what: str, choices: Sequence[str] | None = None) -> None:
        shown = " ".join(map(str, default))
        kind, metavar = (str, "NAME") if choices else (int, "B")
        text = f"{what} (default: {shown})"
        group.add_argument(name, nargs="+", default=default, type=kind, choices=choices, metavar=metavar, help=text)

    sets = (*SETS, ALL_OF_PAPER)
    add("--parts", plan.PARTS, "parts of the grid", plan.PARTS)
    add("--sets", plan.MAIN_SETS, f"image sets of the main part; {ALL_OF_PAPER}: all 15 of Table 3", sets)
    add(
        "--fewer-sets",
        plan.FEWER_SETS,
        f"image sets of the ablations and the temperature part; {ALL_OF_PAPER}: all 15 of Table 3",
        sets,
    )
    add("--objectives", MAIN, "objectives of the main part", (*MAIN, *ABLATIONS))
    add("--batch-sizes", plan.BATCH_SIZES, "batch sizes of the main part and the ablations")
    add("--temperature-batch-sizes", plan.TEMPERATURE_BATCH_SIZES, "batch sizes of the temperature part")
    group.add_argument(
        "--seeds",
        type=int,
        default=2,
        metavar="N",
        help="number of seeds of the main part and the references (default: %(default)s)",
    )


def _settings_of(args: argparse.Namespace) -> Settings:
    names = ("steps", "validations", "valid_images", "train_images", "test_images", "mlp_steps")
    sizes = NetworkSizes(latents=args.latents, query_scale=args.query_scale)
    return Settings(sizes=sizes, **{name: getattr(args, name) for name in names})


def _grid_of(args: argparse.Namespace) -> plan.Grid:
    return plan.Grid(
        settings=_settings_of(args),
        parts=args.parts,
        sets=_sets_of(args.sets),
        fewer_sets=_sets_of(args.fewer_sets),
        objectives=args.objectives,
        batch_sizes=args.batch_sizes,
        temperature_batch_sizes=args.temperature_batch_sizes,
        seeds=args.seeds,
    )


def _sets_of(names: Sequence[str]) -> Sequence[str]:
    return [one.name for one in PAPER] if ALL_OF_PAPER in names else names


def _job_of(args: argparse.Namespace, cell: Cell) -> Job:
    device = None if args.device == "auto" else args.device
    return Job(cell, args.data.resolve(), args.output.resolve(), device)


def _data(args: argparse.Namespace) -> None:
    from .tables import sets_table

    found: dict[str, tuple[tuple[int, int, int] | None, str]] = {name: (None, of.note) for name, of in SETS.items()}
    for images in load_all(SETS, args.data, _say):
        found[images.name] = ((len(images.train), len(images.valid), len(images.test)), images.note)
    print(sets_table(found))
    absent = [(of, file) for name, of in SETS.items() if found[name][0] is None for file in of.files]
    if absent:
        rows = [(str(args.data / of.place / file.name), file.url, file.md5, file.hint) for of, file in absent]
        print("\nFiles to download:\n\n" + markdown_table(("file", "address", "MD5", "then"), list(dict.fromkeys(rows))))


def _network(args: argparse.Namespace) -> None:
    for name in (*MAIN, *ABLATIONS):
        print(f"{name:>10}: {ImageNetwork(_settings_of(args).sizes, OBJECTIVES[name]).parameter_count:,} parameters")


def _train(args: argparse.Namespace) -> None:
    own = {name: getattr(args, name) for name in ("objective", "batch_size", "seed", "tau", "weight")}
    job = _job_of(args, Cell(data=args.set, settings=_settings_of(args), **own))
    run_cell(job)
    print(job.file)


def _grid(args: argparse.Namespace) -> None:
    jobs = [_job_of(args, cell) for cell in plan.cells_of(_grid_of(args))]
    failed = run_grid(jobs, processes=args.processes, scheduler=args.scheduler, say=_say)
    for name, message in failed.items():
        _say(f"failed {name}: {message}")
    if failed:
        sys.exit(f"examples.images: {len(failed)} cells failed. Errors are in {jobs[0].error.parent}. Rerun to try them again.")


def _plan(args: argparse.Namespace) -> None:
    print(plan.report(_grid_of(args), args.seconds, _say))


def _tables(args: argparse.Namespace) -> None:
    from benchmarks.report import record

    from .tables import sections

    cells = read_cells(args.cells)
    found = sections(cells)
    text = "# The paper's image experiments\n\nSections with a command are written by it, from the cell files.\n"
    if args.results.exists():
        text = args.results.read_text(encoding="utf-8")
    written = re.compile(rf"## .*\n\n`{re.escape(TABLES)} ")  # the line below a title
    kept = [part for part in re.split(r"^(?=## )", text, flags=re.MULTILINE) if not written.match(part)]
    args.results.write_text("".join(kept), encoding="utf-8")  # without earlier tables
    for title, parts in found.items():
        record(title, f"{TABLES} --cells {args.cells}", "\n\n".join(parts).split("\n"), results=args.results)
    print(f"{args.results}: {len(cells)} cells")


def _figures(args: argparse.Namespace) -> None:
    from .figures import draw_all

    for path in draw_all(read_cells(args.cells), args.output):
        print(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command."""
    args = arguments().parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"examples.images: {error}")
