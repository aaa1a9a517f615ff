"""Lines of text files, split into fields. Reading can start at any line."""

from __future__ import annotations

import csv
import itertools
import re
import string
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from ..errors import DataError
from .layout import DELIMITED, EMPTY_LINE, MIXED_LINE_ENDS, NO_SMILES, NOT_CSV, NOT_UTF8, Layout, RawLine
from .sources import READ_ERRORS, damaged_file

__all__ = ["fields_of", "numbered_lines", "raw_lines", "rows_of", "split_at_spaces", "why_not_divided"]

_LONG_CELL = 1 << 17  # characters after which the search for the end of a quoted cell is given up, or begun again
_LONGEST_CELL = 1 << 24
_LONG_SEARCHES = 16  # of a file, so that many quotes that are never closed do not take hours

_SPACE = string.whitespace  # only ASCII separates fields: U+00A0 inside a SMILES must not shorten it
_FIELD = re.compile(f"[^{_SPACE}]+")
_FIELD_AND_EXTENSION = re.compile(rf"[^{_SPACE}]+(?:[{_SPACE}]+\|[^|]*\|(?=[{_SPACE}]|$))?")
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
    problem_line: int | None = None


def raw_lines(
    name: str, file: IO[bytes], layout: Layout, number: int = 1, offset: int = 0, copy: IO[bytes] | None = None
) -> Iterator[RawLine]:
    """Yields the lines of a text file, with preamble and header if the file is read from its start.

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


def rows_of(name: str, lines: Iterator[RawLine], layout: Layout, *, strict: bool) -> Iterator[RawLine]:
    """The lines after preamble and header, of `raw_lines` from the start of a file.

    Args:
        name: Name of the file, for messages.
        lines: All lines.
        layout: How they are read.
        strict: The names of all columns are used, so that the header must be UTF-8 text.

    Raises:
        DataError: If the header cannot be divided into columns.
    """
    for line in itertools.islice(lines, layout.preamble + layout.has_header):
        if (reason := why_not_divided(line)) and (strict or line.problem != NOT_UTF8):
            raise DataError(f"{name}, line {line.problem_line or line.line_number}: {reason}")
    yield from lines


def why_not_divided(line: RawLine) -> str:
    """Why a line cannot be divided into columns, as a sentence; empty if it can."""
    if line.problem == NOT_UTF8:
        return "it is not UTF-8 text. Save the file as UTF-8."
    if line.problem == MIXED_LINE_ENDS:
        return "some lines end in a line feed, others in a carriage return. Save the file with one kind of line end."
    if line.problem.startswith(NOT_CSV):
        what = line.problem.removeprefix(f"{NOT_CSV} (").removesuffix(")")
        return f"{what}. Put the complete cell into quotation marks, and double those inside it."
    return ""


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
        problem = NOT_UTF8 if not is_utf8 else MIXED_LINE_ENDS if "\r" in text or "\n" in text else ""
        yield _Record(number, offset, fields, line, problem)


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
        *_, last = ["", *fields_of(text)]
        before = text.rstrip(_SPACE).removesuffix(last).strip(_SPACE)
        return [*_split_at_most(before, width - 1), last] if last else []
    return fields_of(text)


def fields_of(text: str) -> list[str]:
    """Fields that are separated by white space. A CXSMILES extension belongs to the SMILES before it."""
    return [match.group() for match in _FIELD_AND_EXTENSION.finditer(text)]


def _split_at_most(text: str, parts: int) -> list[str]:
    """At most so many fields; the last one keeps its white space."""
    return re.split(f"[{_SPACE}]+", text, maxsplit=parts - 1) if parts > 1 and text else [text] if text else []


def _csv_records(lines: Iterator[_Line], delimiter: str) -> Iterator[_Record]:
    """Records of CSV text. A quote that is never closed makes only its own line invalid: the lines after it are parsed again."""
    pending = deque[_Line]()
    consumed: list[_Line] = []
    searches = _LONG_SEARCHES

    def feed() -> Iterator[str]:
        while line := pending.popleft() if pending else next(lines, None):
            consumed.append(line)
            yield line.text

    def parse(longest_cell: int) -> list[str]:
        before = csv.field_size_limit(longest_cell)
        try:
            return next(csv.reader(feed(), delimiter=delimiter, strict=True))
        finally:
            csv.field_size_limit(before)

    while True:
        consumed.clear()
        fields, problem = [], ""
        try:
            try:
                fields = parse(_LONG_CELL)
            except csv.Error as error:
                if "larger than field limit" not in str(error) or (len(consumed) > 1 and not searches):
                    raise
                searches -= len(consumed) > 1
                pending.extendleft(reversed(consumed))
                longest = max(_LONGEST_CELL, len(consumed[0].text))
                consumed.clear()
                fields = parse(longest)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _why_not_csv(error, len(consumed))
            pending.extendleft(reversed(consumed[1:]))
            del consumed[1:]
        not_utf8 = next((line.number for line in consumed if not line.is_utf8), None)
        if not_utf8 is not None:
            problem = NOT_UTF8
        text = "".join(line.text for line in consumed)
        yield _Record(consumed[0].number, consumed[0].offset, fields, text, problem, not_utf8)


def _why_not_csv(error: csv.Error, lines: int) -> str:
    message = str(error)
    if lines > 1 or "unexpected end" in message:
        what = "a quotation mark opens a cell that is not closed"
    elif "new-line" in message:
        what = "a carriage return is in a cell without quotation marks"
    else:
        what = "text follows the quotation mark that closes a cell"
    return f"{NOT_CSV} ({what})"


def _raw_line(record: _Record, layout: Layout) -> RawLine:
    """The SMILES of a record, or the reason why it has none."""
    text = record.text.rstrip("\r\n")
    problem = record.problem or _problem(record, text, layout)
    smiles = "" if problem else record.fields[layout.smiles_column].strip(_SPACE)
    return RawLine(record.number, record.offset, smiles, text, problem, record.fields, record.problem_line)


def _problem(record: _Record, text: str, layout: Layout) -> str:
    fields = len(record.fields)
    if not text.strip(_SPACE):
        return EMPTY_LINE
    if text == record.text and fields == layout.smiles_column + 1 < layout.width:
        return "line cut short"  # the file ends inside or right after the SMILES, where other lines have more fields
    if layout.form == DELIMITED and fields != layout.width:
        return "wrong number of columns"
    if fields <= layout.smiles_column or not record.fields[layout.smiles_column].strip(_SPACE):
        return NO_SMILES
    return ""
