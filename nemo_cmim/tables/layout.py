"""What the readers of molecules return: where the SMILES of a file are, and its lines."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Layout", "RawLine"]


class Layout(NamedTuple):
    """Where the SMILES are in the lines of a file.

    Attributes:
        file_format: one of `readers.FORMATS`.
        smiles_column: index of the column of SMILES.
        width: number of columns of the first line.
        has_header: whether the first line holds column names, not a molecule.
    """

    file_format: str
    smiles_column: int
    width: int
    has_header: bool


class RawLine(NamedTuple):
    """One line of a file, unchanged.

    Attributes:
        line_number: counted from 1, including the header; in Parquet, the number of the row.
        offset: bytes of the decompressed text before the line; in Parquet, rows before it.
        smiles: the SMILES, not validated; empty if there is a problem.
        text: the whole line without its line end; in Parquet, the SMILES.
        problem: why the line has no SMILES; empty for a good line.
    """

    line_number: int
    offset: int
    smiles: str
    text: str
    problem: str = ""
