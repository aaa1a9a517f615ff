"""Interpolates between pairs of molecules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..arguments import check_integer
from ..errors import DataError, InvalidSmilesError
from ..inference import CMIMModel
from ..steps import Steps
from ..tables.columns import column_index
from ..tables.layout import DETECT, NO_SMILES, ReadOptions
from ..tables.row_writers import row_writer
from ..tables.rows import Block, MoleculeTable
from .rows import (
    DEFAULTS,
    ROWS_AT_ONCE,
    Found,
    Streamed,
    StreamOptions,
    check_outputs,
    problems_of,
    stream_rows,
    unused,
)

__all__ = ["interpolate_file", "interpolate_pair"]

_COLUMNS = {"step": pa.int32(), "generated": pa.string()}
_MOLECULES_AT_ONCE = 4096  # of all paths of a block, so that memory does not depend on the number of steps


def interpolate_pair(
    model: CMIMModel, a: str, b: str, target: str | Path, *, options: StreamOptions = DEFAULTS, **settings: Any
) -> int:
    """Writes the molecules between two: the columns `from`, `to`, `step` (from 1) and `generated`.

    Args:
        model: The model.
        a: SMILES of the first molecule.
        b: SMILES of the last one.
        target: The output, as `tables.row_writers.row_writer` writes it.
        options: Common options.
        settings: Further arguments of `CMIMModel.interpolate`.

    Returns:
        The number of rows written.

    Raises:
        InvalidSmilesError: If one of them cannot be used.
        DataError: See `outputs.check_file`.
        ConfigError: See `CMIMModel.interpolate`.
    """
    for smiles in (a, b):
        if reason := model.invalid_reason(smiles, settings.get("standardise", ())):
            raise InvalidSmilesError(f"{reason[0].upper()}{reason[1:]}.")
    check_outputs(None, target, options)
    texts = model.interpolate(a, b, **settings)
    rows = {"from": [a] * len(texts), "to": [b] * len(texts), "step": range(1, len(texts) + 1), "generated": texts}
    types = {"from": pa.string(), "to": pa.string(), **_COLUMNS}
    with row_writer(Path(target), "generated", "step") as writer:
        writer.append(pa.table([pa.array(rows[name], kind) for name, kind in types.items()], names=list(types)))
    if options.progress:
        options.progress(len(texts), 1.0)
    return len(texts) - writer.left_out


def interpolate_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    from_column: str,
    to_column: str,
    *,
    standardise: Steps = (),
    read: ReadOptions = DETECT,
    options: StreamOptions = DEFAULTS,
    **settings: Any,
) -> Streamed:
    """Writes the molecules between the two of each row of a file: its columns, `step` (from 1) and `generated`.

    Args:
        model: The model.
        source: Molecules, as `MoleculeTable` reads them.
        target: The output, as `tables.row_writers.row_writer` writes it.
        from_column: Name or number of the column of the first molecules.
        to_column: Name or number of the column of the last ones.
        standardise: See `CMIMModel.embed`.
        read: How the source is read, except the column.
        options: Common options.
        settings: Further arguments of `CMIMModel.interpolate_pairs`.

    Raises:
        InvalidSmilesError: If a molecule cannot be used and `options.on_invalid` is "raise".
        DataError: See `stream_rows`; or if a column is missing or does not hold text.
        ConfigError: See `CMIMModel.interpolate`.
    """
    check_integer("steps", settings.get("steps", 2), 2)
    check_outputs(source, target, options)
    with MoleculeTable(source, dataclasses.replace(read, smiles=from_column)) as table:
        end = column_index(table.name, table.names, to_column)

        def compute(first: int, block: Block, report: Callable[[int, int], None]) -> list[Found]:
            ends = _of_column(table, block, end)
            problems: dict[int, str] = {}
            for column, of in ((end, ends), (table.smiles_column, block)):
                problems |= {
                    i: f"column {table.names[column]!r}: {reason}" for i, reason in problems_of(model, of, standardise).items()
                }
            if len(problems) == len(block.smiles) or (problems and options.on_invalid == "raise"):
                return unused(problems, len(block.smiles))
            pairs = {i: (a, b) for i, (a, b) in enumerate(zip(block.smiles, ends.smiles)) if i not in problems and a and b}
            texts = model.interpolate_pairs([*pairs.values()], standardise=standardise, progress=report, **settings)
            paths = dict(zip(pairs, texts))
            return [
                Found((), problems[i], is_valid=False) if i in problems else Found([*enumerate(paths[i] or (), 1)])
                for i in range(len(block.smiles))
            ]

        rows_at_once = max(1, min(ROWS_AT_ONCE, _MOLECULES_AT_ONCE // settings.get("steps", 10)))
        return stream_rows(table, target, _COLUMNS, "generated", compute, options, rows_at_once)


def _of_column(table: MoleculeTable, block: Block, index: int) -> Block:
    """The block with the SMILES of a different column."""
    cells = block.rows.column(index).to_pylist()
    if not all(cell is None or isinstance(cell, str) for cell in cells):
        raise DataError(f"{table.name}: the column {table.names[index]!r} holds {block.rows.schema.types[index]}, not text.")
    problems = {i: NO_SMILES for i, cell in enumerate(cells) if not cell or not cell.strip()}
    return block._replace(smiles=[cell.strip() if cell else None for cell in cells], problems=problems)
