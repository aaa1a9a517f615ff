"""The data sets of table1.py, and the row of MiniMol, which needs their molecules."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nemo_cmim.downstream import RegressionData, load_csv, load_moleculenet
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.evaluation.blocks import block_path
from nemo_cmim.evaluation.digest import digest_of
from nemo_cmim.evaluation.features import FeatureSet, read_vectors, write_vectors
from nemo_cmim.evaluation.peers import MINIMOL_PACKAGE, minimol
from nemo_cmim.tables.rows import MoleculeTable

__all__ = ["MINIMOL", "Reason", "first_of", "load_sets", "minimol_row", "molecules_of", "notes_of"]

MINIMOL = "MiniMol"
TARGET = "target"
Reason = Callable[[str], str | None]
"""Why a molecule cannot be used, or None."""


def first_of(reasons: Sequence[Reason]) -> Reason:
    """The first reason that any of these gives."""
    return lambda smiles: next((reason for find in reasons if (reason := find(smiles))), None)


def load_sets(args: argparse.Namespace, invalid_reason: Reason) -> list[RegressionData]:
    """The data sets of --data or --sets, without the molecules that have an `invalid_reason`.

    Raises:
        ConfigError: If --log10 names an unknown set, or is given with --data.
        DataError: If a file is missing or cannot be used, or if a set of --log10 has a target that is not positive.
    """
    if args.data:
        if args.log10:
            raise ConfigError("--log10 is for the sets of --sets. Leave it out with --data.")
        return load_moleculenet(args.data, invalid_reason)
    sets = []
    for path in csv_files(args.sets, with_target=True):
        data = load_csv(path, on_invalid="drop", invalid_reason=invalid_reason)
        sets += [data, log10_of(data)] if data.name in args.log10 else [data]
    if not sets:
        raise DataError(f"{args.sets} has no CSV file with the column {TARGET!r}.")
    if unknown := set(args.log10) - {data.name for data in sets}:
        raise ConfigError(f"--log10 {' '.join(sorted(unknown))}: choose from {', '.join(data.name for data in sets)}.")
    return sets


def log10_of(data: RegressionData) -> RegressionData:
    """The set with the logarithm of its targets, under a name of its own."""
    if (data.targets <= 0).any():
        raise DataError(f"{data.name} has the target {data.targets.min():g}, which has no logarithm. Leave it out of --log10.")
    return RegressionData(name=f"{data.name}, log10", smiles=data.smiles, targets=np.log10(data.targets), dropped=data.dropped)


def notes_of(args: argparse.Namespace) -> list[str]:
    """Sentences about the rows and data sets that the command line chooses."""
    notes = (
        [f"{MINIMOL} was also trained on measured properties, possibly of these molecules; no other row was."]
        if args.minimol
        else []
    )
    left_out = [path.name for path in csv_files(args.sets, with_target=False)] if args.sets else []
    return notes + ([f"Without a column `{TARGET}`, and not measured: {', '.join(left_out)}."] if left_out else [])


def csv_files(folder: Path, *, with_target: bool) -> list[Path]:
    """The CSV files of a folder that have the column `TARGET`, or those that do not, in the order of their names."""

    def has_target(path: Path) -> bool:
        with MoleculeTable(path) as table:
            return TARGET in table.names

    return [path for path in sorted(folder.glob("*.csv")) if has_target(path) == with_target]


def molecules_of(args: argparse.Namespace, invalid_reason: Reason) -> list[str]:
    """The different SMILES of all data sets, without those that have an `invalid_reason`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about invalid rows, given when the sets are read for the table
        return sorted({text for data in load_sets(args, invalid_reason) for text in data.smiles})


def minimol_row(smiles: Sequence[str], environment: Path, kept: Path, say: Callable[[str], None]) -> tuple[FeatureSet, Reason]:
    """The row of MiniMol, and a function that says for which molecules it has no vector. The vectors are kept in a file.

    Args:
        smiles: The molecules that need a vector.
        environment: Folder of MiniMol's environment.
        kept: Folder of the kept file; created if it does not exist.
        say: Called with a line of text before and after vectors are computed.
    """
    path = block_path(kept, MINIMOL, digest_of(MINIMOL_PACKAGE, list(smiles)), ".npz")
    if not path.exists():
        say(f"computing {MINIMOL}'s vectors of {len(smiles):,} molecules")
        vectors = minimol(smiles, environment)
        is_known = ~np.isnan(vectors).any(axis=1)
        say(f"{MINIMOL} has no vector of {(~is_known).sum():,} molecules")
        kept.mkdir(parents=True, exist_ok=True)
        write_vectors(path, np.array(smiles)[is_known].tolist(), vectors[is_known])
    known = read_vectors(path).keys()
    return FeatureSet(MINIMOL, vectors=str(path)), lambda text: None if text in known else f"{MINIMOL} computes no vector for it"
