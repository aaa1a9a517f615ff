"""Chooses a recipe by successive halving: trains each with few molecules, keeps the best half, and trains these with more.

    python -m tools.search tools/search.yaml --data mix=DATA --held-out DATA --sets FOLDER -o OUTPUT

The file lists the numbers of molecules of the rungs, overrides that all recipes share, and the overrides of each recipe. A rung trains from
scratch, with a complete learning-rate schedule, by `nemo-cmim train` in a process of one thread. The score of a recipe is its mean rank
over token accuracy (held-out molecules, teacher forcing), exact reconstruction and the sets of `tools.validation`. Hours are CPU time, so
that other work on the machine does not count.

Run the command again to resume. Writes results.jsonl and table.md. `--only RECIPE MOLECULES` trains and scores one recipe; several such
calls can run at the same time, and a later call without it uses their results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from pathlib import Path
from typing import IO, Any

import pandas as pd
import psutil
import yaml

from nemo_cmim.evaluation.decoding import decoding
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.inference.shipped import load
from nemo_cmim.mappings import hydra_quoted
from nemo_cmim.markdown import markdown_table
from nemo_cmim.signals import sigterm_raises
from nemo_cmim.training.run import compose
from tools.folders import folders_of
from tools.validation import LOWER_IS_BETTER, validation_scores

NOT_RANKED = ("recipe", "molecules", "hours", "validity")
_PERIOD_S = 10.0


def trained(folder: Path, overrides: list[str], molecules: int) -> tuple[Path, float]:
    """Trains a recipe, or resumes it. Returns the model and the hours of CPU time of all calls, also of those that were interrupted."""
    batch = compose(overrides).model.train_ds.batch_size
    run = [f"trainer.max_steps={molecules // batch}", f"exp_manager.explicit_log_dir={hydra_quoted(folder.absolute())}"]
    command = [sys.executable, "-m", "nemo_cmim.cli", "train", *overrides, *run, "exp_manager.resume_if_exists=true"]
    seconds = folder.with_suffix(".seconds")
    with folder.with_suffix(".log").open("ab") as log:
        status = _run(command, log, seconds)
    if status:
        raise SystemExit(f"Training ended with status {status}; {log.name} says why. Run the same command again to resume.")
    return next((folder / "checkpoints").glob("*.nemo")), float(seconds.read_text()) / 3600


def _run(command: list[str], log: IO[bytes], seconds: Path) -> int:
    """Runs a command and counts its CPU time in a file, at least every `_PERIOD_S`: an interruption loses no more than that."""
    earlier = float(seconds.read_text()) if seconds.exists() else 0.0
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    process = psutil.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    status = None
    try:
        while status is None:
            try:
                status = process.wait(_PERIOD_S)
                used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
            except psutil.TimeoutExpired:
                used = sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
            seconds.write_text(f"{earlier + used}\n")
    finally:
        if status is None:  # interrupted: the training must not continue alone
            process.terminate()
            process.wait()
    return int(status)


def measured(name: str, folder: Path, overrides: list[str], molecules: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains a recipe and scores its model."""
    path, hours = trained(folder, overrides, molecules)
    model = load(path)
    held_out = held_out_molecules(args.held_out, args.decoded, model.config.network.max_tokens)
    return {
        "recipe": name,
        "molecules": molecules,
        "hours": hours,
        **decoding(model, held_out),
        **validation_scores(model, args.sets),
    }


def ranked(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows with their mean rank, the best first."""
    table = pd.DataFrame(rows)
    ranks = [table[column].rank(ascending=column.endswith(LOWER_IS_BETTER)) for column in table if column not in NOT_RANKED]
    return table.assign(**{"mean rank": pd.concat(ranks, axis=1).mean(axis=1)}).sort_values("mean rank")


def _with_folders(override: str, folders: dict[str, str]) -> str:
    for name, path in folders.items():
        override = override.replace("{" + name + "}", path)
    return override


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("spec", type=Path, metavar="SPEC", help="YAML file with rungs, common and recipes")
    add("--data", action="append", required=True, metavar="NAME=FOLDER", help="prepared data, for {NAME} in overrides; repeatable")
    add(
        "--held-out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="prepared data with the molecules to decode, in its test split",
    )
    add("--decoded", type=int, default=1000, metavar="N", help="number of molecules to decode (default: %(default)s)")
    add("--sets", type=Path, required=True, metavar="FOLDER", help="property sets, see tools.validation")
    add("--keep", type=float, default=0.5, help="fraction of the recipes that the next rung trains (default: %(default)s)")
    add("--only", nargs=2, metavar=("RECIPE", "MOLECULES"), help="train and score this recipe only, and write no table")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="output folder")
    return parser.parse_args()


def main() -> None:
    """Trains, scores, and writes the table."""
    args = arguments()
    folders = {name: hydra_quoted(Path(path).absolute()) for name, _, path in (one.partition("=") for one in args.data)}
    spec = yaml.safe_load(args.spec.read_text(encoding="utf-8"))
    names_of_folders = folders_of(spec["recipes"])
    args.output.mkdir(parents=True, exist_ok=True)
    results = args.output / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []

    def ensure(name: str, molecules: int) -> None:
        if not any((row["recipe"], row["molecules"]) == (name, molecules) for row in done):
            overrides = [_with_folders(one, folders) for one in (*spec["common"], *spec["recipes"][name])]
            done.append(measured(name, args.output / f"{names_of_folders[name]}-{molecules}", overrides, molecules, args))
            with results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")

    if args.only:
        ensure(args.only[0], int(args.only[1]))
        return
    names, tables = list(spec["recipes"]), []
    for molecules in spec["rungs"]:
        for name in names:
            ensure(name, molecules)
        table = ranked([row for row in done if row["molecules"] == molecules and row["recipe"] in names])
        tables.append(table)
        names = table["recipe"].tolist()[: max(1, round(len(names) * args.keep))]
        print(table.to_string(), flush=True)
    rows = pd.concat(tables).map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    (args.output / "table.md").write_text(markdown_table(list(rows), rows.to_numpy().tolist()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with sigterm_raises():
        main()
