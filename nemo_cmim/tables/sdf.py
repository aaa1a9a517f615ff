"""Records of .sdf and .mol files: a mol block, then named data. RDKit writes the SMILES of the block."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import IO

from ..steps import check_steps
from .layout import NOT_UTF8, Layout, RawLine
from .text import numbered_lines

__all__ = ["OWN_COLUMNS", "data_names", "read_sdf", "record_starts", "sdf_columns"]

OWN_COLUMNS = ("smiles", "name")  # before those of the data

_END = b"$$$$"
_STEPS = ("extras", "atom-maps")  # they remove what cannot be in the SMILES; other steps would change the column of SMILES
_DATA = re.compile(r"^>(?:.*?<(?P<name>.*)>|\s*(?P<number>.*))")  # > 25 <MELTING.POINT>, or > DT12


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

    steps = tuple(step for step in check_steps(layout.standardise) if step in _STEPS)
    for start, place, lines, not_utf8 in _records(name, file, layout, number, offset, copy):
        text = "\n".join(lines)
        end = _end_of_mol_block(lines)
        data = _data(lines[end:])
        fields = [lines[0], *(data.get(one, "") for one in names)]
        smiles, problem = "", "" if not_utf8 is None else NOT_UTF8
        if any(line.startswith("M  END") for line in lines[end:]):
            problem = "two mol blocks in one record: a line $$$$ is missing between them"
        if not problem:
            try:
                smiles = smiles_of_mol_block("\n".join(lines[:end]) + "\n", steps=steps)
            except InvalidSmilesError as error:
                problem = str(error)
        yield RawLine(start, place, smiles, text, problem, fields, not_utf8)


def data_names(name: str, file: IO[bytes], layout: Layout) -> list[str]:
    """Names of the data of all records, in the order in which they occur first."""
    found: dict[str, None] = {}
    for _, _, lines, _ in _records(name, file, layout, 1, 0, None):
        found.update(dict.fromkeys(_data(lines[_end_of_mol_block(lines) :])))
    return list(found)


def sdf_columns(data: Sequence[str]) -> list[str]:
    """Names of the columns of a file whose data have these names: first those of `OWN_COLUMNS`, with `_` if data have the same name."""
    return [*(next(f"{name}{'_' * n}" for n in itertools.count() if f"{name}{'_' * n}" not in data) for name in OWN_COLUMNS), *data]


def record_starts(name: str, file: IO[bytes], layout: Layout, copy: IO[bytes] | None) -> Iterator[tuple[int, int]]:
    """Yields line number and offset of each record. The lines are also written to `copy`."""
    yield from ((number, offset) for number, offset, _, _ in _records(name, file, layout, 1, 0, copy))


def _records(
    name: str, file: IO[bytes], layout: Layout, number: int, offset: int, copy: IO[bytes] | None
) -> Iterator[tuple[int, int, list[str], int | None]]:
    """Line number, offset and lines of each record, and the number of its first line that is not UTF-8."""
    lines: list[bytes] = []
    start = (number, offset)
    for line_number, place, line in numbered_lines(name, file, layout.line_end, number, offset, copy):
        if not lines:
            start = (line_number, place)
        if line.rstrip() == _END:
            yield (*start, *_decoded(lines, start[0]))
            lines = []
        else:
            lines.append(line)
    if any(line.strip() for line in lines):
        yield (*start, *_decoded(lines, start[0]))


def _decoded(lines: list[bytes], number: int) -> tuple[list[str], int | None]:
    content = b"".join(lines).removeprefix(codecs.BOM_UTF8)
    try:
        text, not_utf8 = content.decode(), None
    except UnicodeDecodeError as error:
        text = content.decode("utf-8", "backslashreplace")
        not_utf8 = number + len(re.findall(rb"\r\n|\n|\r", content[: error.start]))
    return re.split(r"\r\n|\n|\r", text.removesuffix("\n")) or [""], not_utf8


def _end_of_mol_block(lines: Sequence[str]) -> int:
    """Index of the first line after the mol block."""
    return next((i for i, line in enumerate(lines) if line.startswith("M  END")), len(lines)) + 1


def _data(lines: Sequence[str]) -> dict[str, str]:
    """The data after a mol block. Each item is a line with its name, the lines of its value, and an empty line.

    Only the first line, or one after an empty line, can be that of a name: a value may contain empty lines and lines with `>`. The second
    item of a name is called `name_2`.
    """
    found: dict[str, list[str]] = {}
    value: list[str] = []
    is_after_empty = True
    for line in lines:
        match = _DATA.match(line) if is_after_empty else None
        if match:
            name = base = match["name"] if match["name"] is not None else match["number"].strip()
            for number in itertools.count(2):
                if name not in found:
                    break
                name = f"{base}_{number}"
            value = found[name] = []
        else:
            value.append(line)
        is_after_empty = not line.strip()
    return {name: _without_empty_end(lines) for name, lines in found.items()}


def _without_empty_end(lines: list[str]) -> str:
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(lines)
