"""Reads CSV files in which every row must be well formed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DataError
from .columns import check_columns

__all__ = ["read_csv_rows"]


def read_csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str | None, str | None]]]:
    """Yields the number of the last line and the cells by column name of each row.

    Cells beyond the header have the key None; cells that a short row lacks are None.

    Args:
        path: An uncompressed file in UTF-8 with a header.
        columns: Columns that the file must have.

    Raises:
        DataError: If the file is missing, empty or not CSV text, or lacks a column or has it twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not reader.fieldnames:
                raise DataError(f"{path} is empty. A header and at least one row are needed.")
            check_columns(path, reader.fieldnames, columns)
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not CSV text in UTF-8 ({error}), perhaps compressed or a spreadsheet. Save the file as CSV."
        ) from error
