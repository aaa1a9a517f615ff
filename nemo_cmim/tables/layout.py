"""How a file of molecules is read, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "DELIMITED",
    "DETECT",
    "EMPTY_LINE",
    "MIXED_LINE_ENDS",
    "NOT_CSV",
    "NOT_UTF8",
    "NO_SMILES",
    "PARQUET",
    "SDF",
    "SPLIT",
    "Detected",
    "Layout",
    "RawLine",
    "ReadOptions",
]

DELIMITED = "delimited"  # with quoted cells, as CSV
SPLIT = "split"  # at a tab or at white space, without quotes
SDF = "sdf"
PARQUET = "parquet"

# Why a line has no SMILES.
EMPTY_LINE = "empty line"
NO_SMILES = "no SMILES"
NOT_CSV = "not CSV"  # followed by what is wrong
NOT_UTF8 = "not UTF-8 text"
MIXED_LINE_ENDS = "mixed line ends"


@dataclass(frozen=True)
class ReadOptions:
    r"""What a user may say about a file; by default, everything is found out.

    Attributes:
        smiles: Name of the SMILES column, or its number, counted from 1; None: the only column that is called `smiles`,
            `canonical_smiles` or `isomeric_smiles` (case, spaces, `_` and `-` do not matter). A .smi or .txt file without such a column
            has no header, and its first column is read.
        delimiter: `,`, `;`, `|`, a tab (also `tab` or `\t`), or `space` for any white space; None: detected.
        header: False if the first line is a row, not column names; None: detected.
        standardise: Steps of `steps.STEPS`. Of these, `extras` and `atom-maps` are applied to structures of SDF files, as their SMILES
            cannot be written otherwise. All others are for the caller.
    """

    smiles: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    standardise: tuple[str, ...] = ()


DETECT = ReadOptions()
"""Nothing is known about a file."""


class Layout(NamedTuple):
    """How the lines of a file are read.

    Attributes:
        form: `DELIMITED`, `SPLIT`, `SDF` or `PARQUET`.
        smiles_column: Index of the column of SMILES.
        width: Number of columns.
        has_header: Whether the first line holds column names, not a molecule.
        delimiter: The character between two columns; empty for white space.
        line_end: The character that ends a line: a line feed, or a carriage return in files of old Macs.
        standardise: See `ReadOptions`.
        preamble: Number of lines before the header: empty ones, and the line `sep=;` that Excel understands.
    """

    form: str
    smiles_column: int
    width: int
    has_header: bool
    delimiter: str = ""
    line_end: str = "\n"
    standardise: tuple[str, ...] = ()
    preamble: int = 0


class Detected(NamedTuple):
    """How a file is read.

    Attributes:
        layout: How its lines are read.
        names: Names of its columns.
    """

    layout: Layout
    names: Sequence[str]


class RawLine(NamedTuple):
    """One line of a file, unchanged.

    Attributes:
        line_number: Counted from 1, including the header; in Parquet files, the number of the row; in SDF, of the record's first line.
        offset: Bytes of the decompressed text before the line; in Parquet, rows before it.
        smiles: The SMILES, not validated; empty if there is a problem.
        text: The whole line without its line end; in Parquet, the SMILES.
        problem: Why the line has no SMILES; empty for a good line.
        fields: The cells, unchanged; those of an SDF record are its name and its data, for the names of `sdf.data_names`.
        problem_line: Number of the line with the problem, if it is known.
    """

    line_number: int
    offset: int
    smiles: str
    text: str
    problem: str = ""
    fields: Sequence[str] = ()
    problem_line: int | None = None
