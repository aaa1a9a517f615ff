"""Lines of .smi, .txt and .csv files, split into fields. Reading can start at any line."""

from __future__ import annotations

import csv
import re
import string
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from .formats import READ_ERRORS, damaged_file, open_decompressed
from .layout import Layout, RawLine

__all__ = ["Record", "line_starts", "raw_line", "read_records"]

_FIELD = re.compile(f"[^{string.whitespace}]+")  # only ASCII separates fields: U+00A0 inside a SMILES must not shorten it


class _Line(NamedTuple):
    number: int
    offset: int
    text: str  # with its line end
    is_utf8: bool


class Record(NamedTuple):
    """The fields of a line, or of several lines if a quoted CSV cell contains line ends.

    Attributes:
        number: of its first line, counted from 1.
        offset: bytes of the decompressed text before it.
        fields: its cells.
        text: the text without the last line end.
        has_line_end: whether the text ended in a line end.
        problem: why the fields cannot be used; empty for a good record.
    """

    number: int
    offset: int
    fields: Sequence[str]
    text: str
    has_line_end: bool
    problem: str = ""


def read_records(path: Path, file_format: str, number: int = 1, offset: int = 0, copy: IO[bytes] | None = None) -> Iterator[Record]:
    """Yields the records of a text file, from the line with this number and offset. Lines read are also written to `copy`.

    Raises:
        DataError: If the file is damaged.
    """
    lines = _decoded(_read_lines(path, number, offset, copy))
    return _csv_records(lines) if file_format == ".csv" else _split_records(lines, with_tabs=file_format == ".txt")


def line_starts(path: Path, has_header: bool, copy: IO[bytes] | None = None) -> Iterator[tuple[int, int]]:
    """Yields number and offset of each line after the header. The lines are not split into fields, and also written to `copy`.

    Raises:
        DataError: If the file is damaged.
    """
    for number, offset, _ in _read_lines(path, 1, 0, copy):
        if number > 1 or not has_header:
            yield number, offset


def raw_line(record: Record, layout: Layout) -> RawLine:
    """The SMILES of a record, or the reason why it has none."""
    problem = record.problem or _problem(record, layout)
    smiles = "" if problem else record.fields[layout.smiles_column].strip(string.whitespace)
    return RawLine(record.number, record.offset, smiles, record.text, problem)


def _problem(record: Record, layout: Layout) -> str:
    fields = len(record.fields)
    if not record.text.strip():
        return "empty line"
    if not record.has_line_end and fields == layout.smiles_column + 1 < layout.width:
        return "line cut short"  # the file ends inside or right after the SMILES, where other lines have more fields
    if layout.file_format == ".csv" and fields != layout.width:
        return "wrong number of columns"
    if fields <= layout.smiles_column or not record.fields[layout.smiles_column].strip():
        return "no SMILES"
    return ""


def _read_lines(path: Path, number: int, offset: int, copy: IO[bytes] | None) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line, from the one with this number and offset."""
    for line in _numbered_lines(path, number, offset):
        if copy is not None:
            copy.write(line[2])  # outside of the `try` below, where a full disk would look like a damaged file
        yield line


def _numbered_lines(path: Path, number: int, offset: int) -> Iterator[tuple[int, int, bytes]]:
    number -= 1
    try:
        with open_decompressed(path) as stream:
            stream.seek(offset)
            for line in stream:
                number += 1
                yield number, offset, line
                offset += len(line)
    except READ_ERRORS as error:
        raise damaged_file(path, error, f"line {number}") from error


def _decoded(lines: Iterator[tuple[int, int, bytes]]) -> Iterator[_Line]:
    for number, offset, line in lines:
        try:
            yield _Line(number, offset, line.decode("utf-8" if offset else "utf-8-sig"), True)
        except UnicodeDecodeError:
            yield _Line(number, offset, line.decode("utf-8", "backslashreplace"), False)


def _split_records(lines: Iterator[_Line], with_tabs: bool) -> Iterator[Record]:
    for number, offset, line, is_utf8 in lines:
        text = line.rstrip("\r\n")
        fields = text.split("\t") if with_tabs and "\t" in text else _FIELD.findall(text)
        yield Record(number, offset, fields, text, line != text, "" if is_utf8 else "not UTF-8 text")


def _csv_records(lines: Iterator[_Line]) -> Iterator[Record]:
    """Records of CSV text. A quote that is never closed makes only its own line invalid: the lines after it are parsed again."""
    pending = deque[_Line]()
    consumed: list[_Line] = []

    def feed() -> Iterator[str]:
        while line := pending.popleft() if pending else next(lines, None):
            consumed.append(line)
            yield line.text

    while True:
        consumed.clear()
        problem = ""
        try:
            fields = next(csv.reader(feed(), strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            fields, problem = [], f"not CSV ({error})"
            pending.extendleft(reversed(consumed[1:]))
            del consumed[1:]
        text = "".join(line.text for line in consumed)
        if not all(line.is_utf8 for line in consumed):
            problem = "not UTF-8 text"
        yield Record(consumed[0].number, consumed[0].offset, fields, text.rstrip("\r\n"), text.endswith(("\n", "\r")), problem)
