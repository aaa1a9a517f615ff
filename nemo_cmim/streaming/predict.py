"""Predicts measured properties for the molecules of a file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ..errors import DataError
from ..inference.unfinished import Unfinished
from ..properties import PropertyModel
from ..steps import check_steps
from ..tables.columns import listed
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import Block, MoleculeTable
from .rows import DEFAULTS, Found, Streamed, StreamOptions, check_outputs, stream_rows

__all__ = ["predict_file"]

_ROWS_AT_ONCE = 4096
_REASON = "reason"


def predict_file(
    model: PropertyModel,
    source: str | Path,
    target: str | Path,
    *,
    prefix: str = "",
    read: ReadOptions = DETECT,
    options: StreamOptions = DEFAULTS,
    resume: str | None = None,
) -> Streamed:
    """Writes each row of a file with the columns of `PropertyModel.predict_table`, without its `smiles`.

    Args:
        model: The fitted model.
        source: Molecules, as `MoleculeTable` reads them. They are standardised as those of the fit.
        target: The output, as `tables.row_writers.row_writer` writes it, but not .smi.
        prefix: Text before the names of the new columns.
        read: How the source is read.
        options: Common options. With `on_invalid="nan"`, a row that cannot be used is written with the `reason`.
        resume: Text that identifies the model, such as a checksum of its file: finished blocks are kept in the folder `.NAME.unfinished`
            next to the target until it is complete, and those that an interrupted call with the same model left there are not computed
            again. None: nothing is kept.

    Raises:
        ConfigError: With `resume`, if the source is not a file, the target is standard output, or another process writes it.
        InvalidSmilesError: If a molecule cannot be used and `options.on_invalid` is "raise".
        DataError: If the source has a column with the name of a new one; or, with `resume`, if the unfinished work is that of a different
            source, model or option. See `stream_rows` for others.
        CheckpointError: If the model of the embeddings is not the one of the fit.
    """
    check_outputs(source, target, options, smi=False)
    kinds = _kinds(model.predict_table(["C"]))
    read = ReadOptions(read.smiles, read.delimiter, read.header, check_steps(model.standardise))

    def compute(first: int, block: Block, report: Callable[[int, int], None]) -> list[Found]:
        table = model.predict_table([smiles or "" for smiles in block.smiles])
        reasons = [
            options.wording((block.problems.get(row) or reason or "").replace("; standardise=", "; a fit with standardise="))
            or None
            for row, reason in enumerate(table[_REASON].tolist())
        ]
        table[_REASON] = reasons
        cells = table[list(kinds)].astype(object)
        records = cells.where(cells.notna(), None).itertuples(index=False, name=None)
        return [Found([record], reason or "", is_valid=not reason) for record, reason in zip(records, reasons)]

    settings = {"model": resume, "options": vars(read), "prefix": prefix, "rows": _ROWS_AT_ONCE}
    with ExitStack() as stack:
        unfinished = None if resume is None else stack.enter_context(Unfinished(Path(target), [source], settings).opened())
        rows = stack.enter_context(MoleculeTable(source, read))
        columns = {f"{prefix}{name}": kind for name, kind in kinds.items()}
        if taken := [name for name in columns if name in rows.names]:
            raise DataError(
                f"{rows.name} already has columns with the names of new columns: {listed(taken)}. Pass prefix=TEXT to put a text before "
                "the names of all new columns."
            )
        return stream_rows(rows, target, columns, "", compute, options, _ROWS_AT_ONCE, unfinished)


def _kinds(table: pd.DataFrame) -> dict[str, pa.DataType]:
    """Types of the columns of predictions, of those of one molecule."""
    kinds = {
        name: pa.from_numpy_dtype(kind) if pd.api.types.is_numeric_dtype(kind) else pa.string()
        for name, kind in table.dtypes.items()
    }
    return {str(name): kind for name, kind in kinds.items() if name != "smiles"}
