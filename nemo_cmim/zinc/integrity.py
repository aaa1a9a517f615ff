"""Tells a whole file of molecules from one that was cut short, or that is something else."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path
from typing import NamedTuple

from ..files import sha256_of
from ..tables.formats import is_web_page, open_decompressed

__all__ = ["BrokenFileError", "Facts", "check_file"]


class BrokenFileError(Exception):
    """What is wrong with a file."""


class Facts(NamedTuple):
    """Size and SHA-256 of a file as it lies there, and its number of lines when unpacked."""

    bytes: int
    sha256: str
    lines: int


def check_file(path: Path, name: str) -> Facts:
    """Reads a file through.

    Args:
        path: The file.
        name: The name that it has or will have; its end says how to read it: .smi and .txt are tables of
            molecules, .gz and .xz are packed.

    Raises:
        BrokenFileError: It is empty, a web page, or damaged; or it is a table whose last line is not whole: without a line end,
            or with other columns than the line before.
    """
    suffixes = Path(name).suffixes
    with path.open("rb") as stream:
        if is_web_page(stream.read(1024).decode("latin1")):
            raise BrokenFileError("it is a web page")
    before = last = b""
    lines = 0
    try:
        with open_decompressed(path, name) as stream:
            for line in stream:
                before, last = last, line
                lines += 1
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise BrokenFileError(f"it is damaged: {error}") from error
    if not lines:
        raise BrokenFileError("it is empty")
    if {".smi", ".txt"} & set(suffixes):
        _check_last_line(before, last)
    return Facts(path.stat().st_size, sha256_of(path), lines)


def _check_last_line(before: bytes, last: bytes) -> None:
    if not last.endswith(b"\n"):
        raise BrokenFileError("its last line has no end")
    separator = b"\t" if b"\t" in before else None
    expected, found = (len(line.rstrip(b"\r\n").split(separator)) for line in (before, last))
    if before and found != expected:
        raise BrokenFileError(f"its last line has {found} columns, and the line before {expected}")
