"""Checks that a downloaded file is complete and is not something else, such as a web page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..files import sha256_of
from ..tables.detection import COMPRESSIONS, is_web_page
from ..tables.sources import READ_ERRORS, compression_of, open_decompressed

__all__ = ["BrokenFileError", "FileInfo", "check_file"]


class BrokenFileError(Exception):
    """Raised for a file that is not complete or not a file of molecules; the message is the reason."""


class FileInfo(NamedTuple):
    """Size and SHA-256 of a file, and its number of lines after decompression."""

    bytes: int
    sha256: str
    lines: int


def check_file(path: Path, name: str) -> FileInfo:
    """Reads a file to its end.

    Args:
        path: The file.
        name: Its name after the download, whose suffixes determine the checks: .smi and .txt files have columns,
            .gz and .xz files are compressed.

    Raises:
        BrokenFileError: If the file is empty, a web page or damaged, or if the last line of a .smi or .txt file has no line end or
            not the same number of columns as the line before.
    """
    suffixes = Path(name).suffixes
    with path.open("rb") as stream:
        if is_web_page(stream.read(1024).decode("latin1")):
            raise BrokenFileError("the file is a web page")
    before = last = b""
    lines = 0
    try:
        if suffixes and suffixes[-1] in COMPRESSIONS and not compression_of(path):
            raise BrokenFileError("the file is not compressed, although its name says so")
        with open_decompressed(path) as stream:
            for line in stream:
                before, last = last, line
                lines += 1
    except READ_ERRORS as error:
        raise BrokenFileError(f"the file is damaged: {error}") from error
    if not lines:
        raise BrokenFileError("the file is empty")
    if {".smi", ".txt"} & set(suffixes):
        _check_last_line(before, last)
    return FileInfo(path.stat().st_size, sha256_of(path), lines)


def _check_last_line(before: bytes, last: bytes) -> None:
    if not last.endswith(b"\n"):
        raise BrokenFileError("the last line has no line end")
    separator = b"\t" if b"\t" in before else None
    expected, found = (len(line.rstrip(b"\r\n").split(separator)) for line in (before, last))
    if before and found != expected:
        raise BrokenFileError(f"the last line has {found} columns, but the line before has {expected}")
