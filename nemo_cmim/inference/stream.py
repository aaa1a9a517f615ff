"""Embeds files of any size in constant memory: reads a block of rows, embeds and writes it, then reads the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import DataError, InvalidSmilesError
from ..tables.arrow_blocks import read_blocks
from ..tables.writers import check_output, embedding_writer
from .model import CMIMModel

__all__ = ["embed_file"]

ROWS_AT_ONCE = 8192


def embed_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    *,
    column: str = "smiles",
    kind: str = "informative",
    layers: Sequence[int] | None = None,
    on_invalid: str = "raise",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Adds an embedding to each row of a file.

    Args:
        model: The model.
        source: A `.csv` or `.tsv` file with a header (plain or .gz), a `.parquet` file, or a `.smi` or `.txt` file as
            `tables.readers.read_molecules` reads it. For `.smi` and `.txt`, the output has the columns `smiles` and `id`, which holds
            the other fields of the line.
        target: A `.parquet` file (all columns of `source`, and `embedding`, a list of float32) or a `.csv` file (all columns, and
            one for each dimension: `e0`, `e1`, ...). Written atomically.
        column: Name of the SMILES column.
        kind: "informative" or "mean".
        layers: See `CMIMModel.embed`.
        on_invalid: "raise", or "nan" to write a row of NaN for an invalid molecule.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        overwrite: Replace `target` if it exists.
        progress: Called after each block with its number of rows.

    Returns:
        The number of rows written, which is the number of rows read.

    Raises:
        ConfigError: If the model does not have this kind or these layers.
        DataError: If the source or its SMILES column is missing, the source is empty, damaged or of an unknown format, or the target
            cannot be written.
        InvalidSmilesError: If a molecule is invalid and `on_invalid` is "raise". The message contains the row.
    """
    source, target = Path(source), Path(target)
    check_output(target, overwrite)
    if not source.is_file():
        raise DataError(f"There is no file {source}. Check the path.")
    rows = 0
    with embedding_writer(target) as append:
        for block in read_blocks(source, column, ROWS_AT_ONCE):
            try:
                vectors = model.embed(
                    block.smiles, kind, layers=layers, on_invalid=on_invalid, batch_size=batch_size, first_index=rows
                )
            except InvalidSmilesError as error:
                raise type(error)(f"{source}, rows counted from 0: {error} On the command line: --on-invalid nan.") from error
            append(block.rows, vectors)
            rows += len(vectors)
            if progress:
                progress(len(vectors))
        if not rows:
            raise DataError(f"{source} holds no rows.")
    return rows
