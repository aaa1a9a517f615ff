"""Formats of users' files: names, compression, and the errors for files that cannot be read."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from ..files import atomic_write

__all__ = [
    "COMPRESSIONS",
    "READ_ERRORS",
    "damaged_file",
    "decompress",
    "format_of",
    "is_compressed",
    "is_web_page",
    "open_decompressed",
    "unsupported_format",
]

COMPRESSIONS = (".gz", ".xz")

READ_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)  # of a file that is damaged, truncated or not compressed


def format_of(name: str) -> str:
    """The suffix of a file name, without .gz or .xz: `.csv` for `molecules.csv.gz`."""
    return Path(name.removesuffix(".gz").removesuffix(".xz")).suffix


def open_decompressed(path: Path, name: str | None = None) -> io.BufferedIOBase:
    """Opens a file for reading bytes, decompressed if its name ends in .gz or .xz.

    Args:
        path: The file.
        name: The name to go by; None: that of `path`.
    """
    suffix = Path(name or path.name).suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    return lzma.open(path) if suffix == ".xz" else path.open("rb")


def is_compressed(path: Path) -> bool:
    """Whether the name of a file ends in .gz or .xz."""
    return path.suffix.lower() in COMPRESSIONS


def decompress(path: Path, target: Path) -> None:
    """Writes the decompressed contents of a file to `target`.

    Raises:
        DataError: If the file is damaged.
    """
    with atomic_write(target) as staging, staging.open("wb") as file:
        for block in _blocks(path):
            file.write(block)


def _blocks(path: Path) -> Iterator[bytes]:
    size = 0
    try:
        with open_decompressed(path) as stream:
            while block := stream.read(1 << 20):
                size += len(block)
                yield block
    except READ_ERRORS as error:
        raise damaged_file(path, error, f"byte {size}") from error


def is_web_page(beginning: str) -> bool:
    """Whether a file that begins with this text is HTML or XML, which servers send in place of a missing file."""
    return beginning.lstrip().lower().startswith(("<!doctype", "<html", "<?xml"))


def unsupported_format(path: Path, supported: str) -> DataError:
    """The error for a file name with an unknown suffix."""
    return DataError(f"{path} has an unsupported format. Use a file whose name ends in {supported}.")


def damaged_file(path: Path, error: Exception, after: str = "") -> DataError:
    """The error for a file that cannot be read to its end, or beyond `after`, such as "line 7"."""
    place = f" after {after}" if after else ""
    return DataError(
        f"{path} cannot be read{place}: {error}. The file is damaged, truncated, or not in the format of its name: "
        "download or compress the file again."
    )
