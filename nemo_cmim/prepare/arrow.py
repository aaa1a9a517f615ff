"""Columns in Arrow files, which are memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import atomic_write

__all__ = ["open_arrow", "write_arrow"]


def write_arrow(path: Path, columns: dict[str, Any]) -> None:
    """Writes columns of equal length to an Arrow file of one batch."""
    import pyarrow

    table = pyarrow.table(columns).combine_chunks()
    with (
        atomic_write(path) as staging,
        pyarrow.OSFile(str(staging), "wb") as sink,
        pyarrow.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=max(len(table), 1))


def open_arrow(path: Path) -> dict[str, Any]:
    """Memory-maps the columns that `write_arrow` wrote, so that only the parts in use take up memory."""
    import pyarrow

    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()
    return {
        name: column.chunk(0) if column.num_chunks else column.combine_chunks()
        for name, column in zip(table.column_names, table.columns)
    }
