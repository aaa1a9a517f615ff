"""Records of .sdf and .mol files: a mol block, then named data. RDKit writes the SMILES of the block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import IO

from ..steps import check_steps
from .layout import NOT_UTF8, Layout, RawLine
from .text import numbered_lines

__all__ = ["data_names", "read_sdf", "record_starts"]

_END = b"$$$$"
_DATA = re.compile(r"^>.*?<(?P<name>.*)>")  # > 25 <MELTING.POINT>


def read_sdf(
    name: str,
    file: IO[bytes],
    layout: Layout,
    number: int = 1,
    offset: int = 0,
    copy: IO[bytes] | None = None,
    *,
    names: Sequence[str] = (),
) -> Iterator[RawLine]:
    """Yields the records of an SDF file; see `text.raw_lines` for the other arguments, and for errors.

    `RawLine.fields` are the name of the molecule and the data with these `names`; an item that a record lacks is empty.
    """
    from ..errors import InvalidSmilesError
    from ..molecules import smiles_of_mol_block

    steps = check_steps(layout.standardise)
    for start, place, lines, is_utf8 in _records(name, file, layout, number, offset, copy):
        text = "\n".join(lines)
        end = next((i for i, line in enumerate(lines) if line.startswith("M  END")), len(lines)) + 1
        data = _data(lines[end:])
        fields = [lines[0], *(data.get(one, "") for one in names)]
        smiles, problem = "", "" if is_utf8 else NOT_UTF8
        if not problem:
            try:
                smiles = smiles_of_mol_block("\n".join(lines[:end]) + "\n", steps=steps)
            except InvalidSmilesError as error:
                problem = str(error)
        yield RawLine(start, place, smiles, text, problem, fields)


def data_names(name: str, file: IO[bytes], layout: Layout) -> list[str]:
    """Names of the data of all records, in the order in which they occur first."""
    found: dict[str, None] = {}
    for _, _, lines, _ in _records(name, file, layout, 1, 0, None):
        found.update(dict.fromkeys(match["name"] for line in lines if (match := _DATA.match(line))))
    return list(found)


def record_starts(name: str, file: IO[bytes], layout: Layout, copy: IO[bytes] | None) -> Iterator[tuple[int, int]]:
    """Yields line number and offset of each record. The lines are also written to `copy`."""
    yield from ((number, offset) for number, offset, _, _ in _records(name, file, layout, 1, 0, copy))


def _records(
    name: str, file: IO[bytes], layout: Layout, number: int, offset: int, copy: IO[bytes] | None
) -> Iterator[tuple[int, int, list[str], bool]]:
    """Line number, offset, lines, and whether they are UTF-8, of each record."""
    lines: list[bytes] = []
    start = (number, offset)
    for line_number, place, line in numbered_lines(name, file, layout.line_end, number, offset, copy):
        if not lines:
            start = (line_number, place)
        if line.rstrip() == _END:
            yield (*start, *_decoded(lines))
            lines = []
        else:
            lines.append(line)
    if any(line.strip() for line in lines):
        yield (*start, *_decoded(lines))


def _decoded(lines: list[bytes]) -> tuple[list[str], bool]:
    content = b"".join(lines)
    try:
        text, is_utf8 = content.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        text, is_utf8 = content.decode("utf-8", "backslashreplace"), False
    return re.split(r"\r\n|\n|\r", text.removesuffix("\n")) or [""], is_utf8


def _data(lines: Sequence[str]) -> dict[str, str]:
    """The data after a mol block: a line with the name, then lines up to an empty one."""
    found: dict[str, str] = {}
    name = None
    for line in lines:
        if name is None:
            match = _DATA.match(line)
            name = match["name"] if match else None
            if name is not None:
                found.setdefault(name, "")
        elif line:
            found[name] += f"\n{line}" if found[name] else line
        else:
            name = None
    return found
