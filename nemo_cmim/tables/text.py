"""Lines of text files, split into fields. Reading can start at any line."""

from __future__ import annotations

import csv
import re
import string
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from .layout import DELIMITED, EMPTY_LINE, NO_SMILES, NOT_CSV, NOT_UTF8, Layout, RawLine
from .sources import READ_ERRORS, damaged_file

__all__ = ["UNCLOSED", "numbered_lines", "raw_lines", "split_at_spaces"]

UNCLOSED = "a quoted cell is not closed"

_SPACE = string.whitespace  # only ASCII separates fields: U+00A0 inside a SMILES must not shorten it
_FIELD = re.compile(f"[^{_SPACE}]+")
_EXTENSION = re.compile(rf"[^{_SPACE}]+[{_SPACE}]+\|[^|]*\|(?=[{_SPACE}]|$)")  # a SMILES with a CXSMILES extension


class _Line(NamedTuple):
    number: int
    offset: int
    text: str  # with its line end
    is_utf8: bool


class _Record(NamedTuple):
    """A line, or several lines if a quoted cell contains line ends."""

    number: int
    offset: int
    fields: Sequence[str]
    text: str  # with its line end
    problem: str


def raw_lines(
    name: str, file: IO[bytes], layout: Layout, number: int = 1, offset: int = 0, copy: IO[bytes] | None = None
) -> Iterator[RawLine]:
    """Yields the lines of a text file, the header too if the file is read from its start.

    Args:
        name: Name of the file, for messages.
        file: Decompressed bytes, from the line to start with.
        layout: How lines are read.
        number: Number of that line.
        offset: Offset of that line.
        copy: A file that the lines read are also written to.

    Raises:
        DataError: If the file is damaged.
    """
    lines = _decoded(numbered_lines(name, file, layout.line_end, number, offset, copy))
    records = _csv_records(lines, layout.delimiter) if layout.form == DELIMITED else _split_records(lines, layout)
    return (_raw_line(record, layout) for record in records)


def numbered_lines(
    name: str, file: IO[bytes], line_end: str = "\n", number: int = 1, offset: int = 0, copy: IO[bytes] | None = None
) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line; see `raw_lines` for the arguments."""
    for line in _numbered(name, file, line_end.encode(), number, offset):
        if copy is not None:
            copy.write(line[2])  # outside of the `try` below, where a full disk would look like a damaged file
        yield line


def _numbered(name: str, file: IO[bytes], line_end: bytes, number: int, offset: int) -> Iterator[tuple[int, int, bytes]]:
    number -= 1
    try:
        for line in file if line_end == b"\n" else _lines_of(file, line_end):
            number += 1
            yield number, offset, line
            offset += len(line)
    except READ_ERRORS as error:
        raise damaged_file(name, error, f"line {number}") from error


def _lines_of(file: IO[bytes], line_end: bytes) -> Iterator[bytes]:
    rest = b""
    while block := file.read(1 << 16):
        *complete, rest = (rest + block).split(line_end)
        yield from (line + line_end for line in complete)
    if rest:
        yield rest


def _decoded(lines: Iterator[tuple[int, int, bytes]]) -> Iterator[_Line]:
    for number, offset, line in lines:
        try:
            yield _Line(number, offset, line.decode("utf-8" if offset else "utf-8-sig"), True)
        except UnicodeDecodeError:
            yield _Line(number, offset, line.decode("utf-8", "backslashreplace"), False)


def _split_records(lines: Iterator[_Line], layout: Layout) -> Iterator[_Record]:
    width = layout.width if layout.has_header else max(layout.width, 2)  # without a header, any line may have a name
    for number, offset, line, is_utf8 in lines:
        text = line.rstrip("\r\n")
        fields = text.split(layout.delimiter) if layout.delimiter else split_at_spaces(text, width, layout.smiles_column)
        yield _Record(number, offset, fields, line, "" if is_utf8 else NOT_UTF8)


def split_at_spaces(text: str, width: int, smiles_column: int) -> list[str]:
    """Splits a line of .smi at white space. Only a SMILES cannot contain any: the field after it, or before it, keeps its own.

    Args:
        text: The line.
        width: Number of columns.
        smiles_column: Index of the column of SMILES.
    """
    if smiles_column == 0:
        text = text.lstrip(_SPACE)
        if not (smiles := _EXTENSION.match(text) or _FIELD.match(text)):
            return []
        return [smiles.group(), *_split_at_most(text[smiles.end() :].lstrip(_SPACE), width - 1)]
    if smiles_column == width - 1:
        *_, last = ["", *_FIELD.findall(text)]
        before = text.rstrip(_SPACE).removesuffix(last).strip(_SPACE)
        return [*_split_at_most(before, width - 1), last] if last else []
    return _FIELD.findall(text)


def _split_at_most(text: str, parts: int) -> list[str]:
    """At most so many fields; the last one keeps its white space."""
    return re.split(f"[{_SPACE}]+", text, maxsplit=parts - 1) if parts > 1 and text else [text] if text else []


def _csv_records(lines: Iterator[_Line], delimiter: str) -> Iterator[_Record]:
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
            fields = next(csv.reader(feed(), delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            several = len(consumed) > 1 or "unexpected end" in str(error)
            fields, problem = [], f"{NOT_CSV} ({UNCLOSED if several else error})"
            pending.extendleft(reversed(consumed[1:]))
            del consumed[1:]
        if not all(line.is_utf8 for line in consumed):
            problem = NOT_UTF8
        text = "".join(line.text for line in consumed)
        yield _Record(consumed[0].number, consumed[0].offset, fields, text, problem)


def _raw_line(record: _Record, layout: Layout) -> RawLine:
    """The SMILES of a record, or the reason why it has none."""
    text = record.text.rstrip("\r\n")
    problem = record.problem or _problem(record, text, layout)
    smiles = "" if problem else record.fields[layout.smiles_column].strip(_SPACE)
    return RawLine(record.number, record.offset, smiles, text, problem, record.fields)


def _problem(record: _Record, text: str, layout: Layout) -> str:
    fields = len(record.fields)
    if not text.strip():
        return EMPTY_LINE
    if text == record.text and fields == layout.smiles_column + 1 < layout.width:
        return "line cut short"  # the file ends inside or right after the SMILES, where other lines have more fields
    if layout.form == DELIMITED and fields != layout.width:
        return "wrong number of columns"
    if fields <= layout.smiles_column or not record.fields[layout.smiles_column].strip():
        return NO_SMILES
    return ""
