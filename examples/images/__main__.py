"""The paper's image experiments (Sec. 3.1-3.6, D.1): which objective, at which batch size.

    python -m examples.images data                         # which image sets are at hand; addresses of the others
    python -m examples.images plan --latents 49 --steps 750   # measures steps here, and tells the core-hours of the grid
    python -m examples.images grid --latents 49 --steps 750 --test-images 2000 --valid-images 500 --processes 2 -o cells   # again to go on
    python -m examples.images tables --cells cells         # RESULTS.md, from the finished cells
    python -m examples.images figures --cells cells -o figures

Run from the root of the checkout. `train` runs a single cell, `network` prints the number of parameters. The defaults are the paper's
sizes: 400 latent steps and 1,000,000 training steps, which need a GPU or a cluster. On a cluster, start a Dask scheduler and workers
in this checkout and add `--scheduler tcp://HOST:8786` to `grid`; all workers must see the folders of data and cells.
Each command has `--help`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from nemo_cmim.losses import OBJECTIVES
from nemo_cmim.markdown import markdown_table

from . import plan
from .cell import ABLATIONS, MAIN, Cell, Settings, build
from .data import DEFAULT_FOLDER, load
from .grid import Job, available, read_cells, run_cell, run_grid
from .network import ImageNetwork, NetworkSizes
from .sets import SETS


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m examples.images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")

    _add_data(command("data", "list the image sets: those at hand with their parts, the others with the addresses of their files"))
    network = command("network", "print the number of parameters of each objective's network")
    _add_settings(network)
    one = command("train", "train and evaluate one cell")
    _add_data(one)
    _add_settings(one)
    _add_output(one)
    one.add_argument("--set", required=True, metavar="NAME", help="name of the image set; `data` lists them")
    one.add_argument("--objective", required=True, choices=(*MAIN, *ABLATIONS), help="objective")
    one.add_argument("--batch-size", type=int, required=True, metavar="B", help="images in a batch")
    one.add_argument(
        "--seed", type=int, default=0, help="of weights, order, augmentation, noise and classifiers (default: %(default)s)"
    )
    one.add_argument("--tau", type=float, default=0.1, help="temperature of contrastive terms (default: %(default)s)")
    one.add_argument("--weight", type=float, default=1.0, help="weight of the contrastive term (default: %(default)s)")
    for name, what in (
        ("grid", "train and evaluate many cells on Dask; finished cells are skipped, interrupted ones are resumed"),
        ("plan", "measure the time of a step, and print the core-hours of a grid"),
    ):
        many = command(name, what)
        _add_settings(many)
        _add_grid(many)
        if name == "grid":
            _add_data(many)
            _add_output(many)
            many.add_argument(
                "--processes", type=int, default=1, metavar="N", help="processes, each on one core (default: %(default)s)"
            )
            many.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler, in place of processes here")
        else:
            many.add_argument("--seconds", type=float, default=1.0, help="core-seconds of each measurement (default: %(default)s)")
    tables = command("tables", "write the tables of finished cells into RESULTS.md; other sections of the file stay as they are")
    tables.add_argument(
        "--cells", type=Path, default=Path("cells"), metavar="FOLDER", help="output of `grid` (default: %(default)s)"
    )
    tables.add_argument(
        "--results", type=Path, default=Path(__file__).with_name("RESULTS.md"), metavar="FILE", help="file to write"
    )
    figures = command("figures", "draw the figures of finished cells")
    figures.add_argument(
        "--cells", type=Path, default=Path("cells"), metavar="FOLDER", help="output of `grid` (default: %(default)s)"
    )
    figures.add_argument("-o", "--output", type=Path, default=Path("figures"), metavar="FOLDER", help="(default: %(default)s)")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER", help="folder of the image sets (default: %(default)s)"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("cells"), metavar="FOLDER", help="folder of the cells (default: %(default)s)"
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group, default, sizes = parser.add_argument_group("settings of all cells"), Settings(), NetworkSizes()
    add = partial(group.add_argument, type=int, metavar="N")
    add("--latents", default=sizes.latents, help="steps of the latent array (default: the paper's %(default)s)")
    add("--steps", default=default.steps, help="training steps, the same for all batch sizes (default: the paper's %(default)s)")
    add("--validations", default=default.validations, help="number of validations of a run (default: %(default)s)")
    add("--valid-images", default=default.valid_images, help="validation images, at most (default: %(default)s)")
    add("--train-images", default=default.train_images, help="training images of the classifiers, at most (default: %(default)s)")
    add("--test-images", default=default.test_images, help="test images, at most (default: %(default)s)")
    add("--mlp-steps", default=default.mlp_steps, help="updates of the MLP classifier (default: %(default)s)")


def _add_grid(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cells of the grid", plan.__doc__)
    add = partial(group.add_argument, nargs="+")
    add("--parts", default=plan.PARTS, choices=plan.PARTS, help="(default: all)")
    add("--sets", default=plan.SETS, choices=SETS, metavar="NAME", help=f"sets of the main part (default: {' '.join(plan.SETS)})")
    few = " ".join(plan.FEWER_SETS)
    add("--fewer-sets", default=plan.FEWER_SETS, choices=SETS, metavar="NAME", help=f"sets of the other parts (default: {few})")
    add(
        "--objectives",
        default=MAIN,
        choices=(*MAIN, *ABLATIONS),
        metavar="NAME",
        help="of the main part (default: the five of Fig. 3)",
    )
    add("--batch-sizes", default=plan.BATCH_SIZES, type=int, metavar="B", help="(default: 2 5 10 100 200)")
    group.add_argument("--seeds", type=int, default=2, metavar="N", help="seeds of the main part (default: %(default)s)")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the options name."""
    return Settings(
        sizes=NetworkSizes(latents=args.latents),
        steps=args.steps,
        validations=args.validations,
        valid_images=args.valid_images,
        train_images=args.train_images,
        test_images=args.test_images,
        mlp_steps=args.mlp_steps,
    )


def grid_of(args: argparse.Namespace) -> plan.Grid:
    """The grid that the options name."""
    names = ("parts", "sets", "fewer_sets", "objectives", "batch_sizes", "seeds")
    return plan.Grid(settings=settings_of(args), **{name: getattr(args, name) for name in names})


def main(argv: list[str] | None = None) -> None:
    """Runs a command."""
    args = arguments().parse_args(argv)
    if args.command == "data":
        _print_sets(args.data)
    elif args.command == "network":
        for name in (*MAIN, *ABLATIONS):
            print(f"{name:>10}: {ImageNetwork(settings_of(args).sizes, OBJECTIVES[name]).parameter_count:,} parameters")
    elif args.command == "train":
        cell = Cell(
            data=args.set,
            objective=args.objective,
            batch_size=args.batch_size,
            seed=args.seed,
            tau=args.tau,
            weight=args.weight,
            settings=settings_of(args),
        )
        _say(f"{cell.name}: {build(cell)[0].parameter_count:,} parameters")
        job = Job(cell, args.data, args.output)
        run_cell(job)
        print(job.file)
    elif args.command == "grid":
        jobs = [Job(cell, args.data.resolve(), args.output.resolve()) for cell in plan.cells_of(grid_of(args))]
        at_hand = available(dict.fromkeys(job.cell.data for job in jobs), args.data, _say)
        some = [job for job in jobs if job.cell.data in at_hand]
        run_grid(some, processes=args.processes, scheduler=args.scheduler, say=_say)
    elif args.command == "plan":
        print(plan.report(grid_of(args), args.seconds, _say))
    elif args.command == "tables":
        _write_tables(args.cells, args.results)
    else:
        from .figures import draw_all

        for path in draw_all(read_cells(args.cells), args.output):
            print(path)


def _write_tables(folder: Path, results: Path) -> None:
    from benchmarks.report import record

    from .tables import sections

    cells = read_cells(folder)
    if not results.exists():
        results.write_text(
            "# The paper's image experiments\n\nEach section with a command is written by it, from the cell files.\n",
            encoding="utf-8",
        )
    for title, parts in sections(cells).items():
        lines = "\n\n".join(parts).split("\n")
        record(title, f"python -m examples.images tables --cells {folder.name}", lines, results=results)
    print(f"{results}: {len(cells)} cells")


def _print_sets(folder: Path) -> None:
    found = available(SETS, folder, lambda _: None)
    rows, absent = [], []
    for name, of in SETS.items():
        counts, note = "absent", of.note
        if name in found:
            images = load(name, folder)
            counts, note = f"{len(images.train):,} / {len(images.valid):,} / {len(images.test):,}", images.note
        else:
            absent += [f"{folder / of.place / file.name}  {file.url}  md5 {file.md5}" for file in of.files]
        documented = " / ".join(f"{count:,}" for count in of.documented)
        paper = "{:,} / {:,}, {} classes".format(*of.paper) if of.paper else "not in the paper"
        rows.append((name, counts, f"{documented}, {of.classes} classes", paper, note))
    print(markdown_table(("set", "train / valid / test here", "documented", "train / test in Table 3", "note"), rows))
    if absent:
        print("\nFiles to download, with their addresses and checksums:\n" + "\n".join(absent))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"examples.images: {error}")
