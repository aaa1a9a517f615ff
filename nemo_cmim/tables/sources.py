"""Opens what users name as input: a file, `-` for standard input, a FIFO, or a URL. Compression is recognised by content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from ..errors import ConfigError, DataError
from ..files import atomic_write

__all__ = [
    "READ_ERRORS",
    "STDIN",
    "Source",
    "compression_of",
    "damaged_file",
    "decompress",
    "missing_storage",
    "open_at",
    "open_decompressed",
    "open_source",
    "reopenable",
    "source_state",
]

STDIN = "-"
READ_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)  # of a file that is damaged, truncated or not compressed

_MARKS = ("ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "created")  # as file systems call them
_REMOTE_BLOCK = 1 << 16
_HEAD = 1 << 14  # bytes from which format and columns are detected
_LONGEST_LINE = 1 << 26
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_MAGIC |= {bytes([first]) + b"\x2a\x4d\x18": "zst" for first in range(0x50, 0x60)}  # frames without data, as pzstd writes


class Source:
    """An input that is open for reading.

    Attributes:
        name: What the user called it, for messages.
        file: The decompressed bytes, from the start.
        head: The first bytes of `file`, which are not consumed by looking at them.
        size: Size in bytes before decompression; None if unknown.
        path: The file that is read; None for other inputs.
        compression: See `compression_of`.
        can_seek: Whether `open_at` can begin to read at any byte.
    """

    def __init__(self, name: str, raw: IO[bytes], size: int | None, path: Path | None = None) -> None:
        self.name, self.size, self.path, self._raw = name, size, path, raw
        self._is_stdin = raw is getattr(sys.stdin, "buffer", None)
        try:
            first = raw.read(max(map(len, _MAGIC)))
            self.compression = compression_of(first)
            self.can_seek = not self.compression and raw.seekable()
            file = _OPENERS[self.compression](_chained(first, raw))
            self.head = _head(file)
        except READ_ERRORS as error:
            raw.close()
            raise damaged_file(name, error, "byte 0") from error
        self.file = _chained(self.head, file)

    def position(self) -> int | None:
        """Bytes read so far, before decompression; None if unknown."""
        try:
            return self._raw.tell()
        except (OSError, ValueError):
            return None

    def blocks(self) -> Iterator[bytes]:
        """Yields all bytes.

        Raises:
            DataError: If the input is damaged.
        """
        size = 0
        try:
            while block := self.file.read(1 << 20):
                size += len(block)
                yield block
        except READ_ERRORS as error:
            raise damaged_file(self.name, error, f"byte {size}") from error

    def close(self) -> None:
        """Closes the input, but not standard input."""
        if not self._is_stdin:
            self._raw.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _head(file: IO[bytes]) -> bytes:
    """The first bytes of a file, with all of its first line; fewer if the file is damaged after them."""
    parts: list[bytes] = []
    length, has_line = 0, False
    try:
        while (length < _HEAD or (not has_line and length < _LONGEST_LINE)) and (part := file.read1(_HEAD)):  # type: ignore[attr-defined]
            parts.append(part)
            length, has_line = length + len(part), has_line or b"\n" in part
    except READ_ERRORS:
        if not parts:
            raise
    return b"".join(parts)


def open_source(where: str | Path) -> Source:
    """Opens a path, a URL that fsspec supports (`https://`, `s3://`, ...), or `-`, standard input.

    Raises:
        DataError: If it is missing, a folder, or cannot be read.
        ConfigError: If a URL needs a package that is not installed.
    """
    if str(where) == STDIN:
        return Source("standard input", sys.stdin.buffer, None)
    if "://" in str(where):
        remote = _open_remote(str(where))
        return Source(str(where), _buffered(remote), getattr(remote.file, "size", None))
    path = Path(where)
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name the files in the folder.")
        return Source(str(where), path.open("rb"), path.stat().st_size if path.is_file() else None, path)
    except FileNotFoundError:
        from ..molecules import is_valid  # RDKit is loaded only for the message

        hint = " To pass a SMILES, write it to a file or to standard input." if is_valid(str(path)) else ""
        raise DataError(f"{path} is missing; check the path.{hint}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _open_remote(url: str) -> _Remote:
    """Opens a URL that fsspec supports for reading. A web server that sends whole files only gives a file that cannot `seek`.

    Raises:
        DataError: If it cannot be read.
        ConfigError: If it needs a package that is not installed.
    """
    try:
        import fsspec

        file = fsspec.open(url, "rb").open()
        if url.startswith(("http://", "https://")) and not _reads_from_middle(file):
            file.close()
            file = fsspec.open(url, "rb", block_size=0).open()  # the file from its first byte on
    except ImportError as error:
        raise missing_storage(url, error) from error
    except Exception as error:  # those of the library of the storage have no common class
        cause = error.__cause__ or error
        reason = type(cause).__name__ if str(cause) in ("", url) else str(cause).rstrip(".")
        raise DataError(f"{url} cannot be read: {reason}. Check the address.") from error
    return _Remote(file)


def _buffered(remote: _Remote) -> IO[bytes]:
    return io.BufferedReader(remote, _REMOTE_BLOCK)


def _reads_from_middle(file: Any) -> bool:
    """Whether the web server of a file sends parts of it: asks for the last byte."""
    if (file.size or 0) < 2:
        return False
    try:
        file.seek(file.size - 1)
        file.read(1)
        file.seek(0)
    except ValueError:  # what fsspec raises
        return False
    return True


class _Remote(io.RawIOBase):
    """A file of fsspec, all errors of which are `OSError`."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self._can_seek = getattr(file, "size", None) is not None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._can_seek

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read(len(buffer))
        except OSError:
            raise
        except Exception as error:  # those of the library of the storage have no common class
            raise OSError(str(error) or type(error).__name__) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def close(self) -> None:
        self.file.close()
        super().close()


def missing_storage(url: str, error: ImportError) -> ConfigError:
    """The error for a URL that needs a package that is not installed."""
    return ConfigError(
        f"{url} requires a package that is not installed: {str(error).rstrip('.')}. Run pip install 'nemo_cmim[data]', and install the "
        "package of the storage: s3fs for s3://, gcsfs for gs://, adlfs for abfs://."
    )


def source_state(where: str | Path) -> list[Any]:
    """Size of a file or URL and what else changes when it is written: the modification time in ns, or the tag of an object.

    Raises:
        DataError: If there is no such file, if it cannot be read again, as standard input, or if its server does not tell when it changes.
        ConfigError: If a URL needs a package that is not installed.
    """
    if "://" in str(where):
        with _open_remote(str(where)) as remote:
            file = remote.file
            fs, path = getattr(file, "fs", None), getattr(file, "path", None)
            found = fs.info(path) if fs is not None and path is not None else {}
            marks = [found[key] for key in _MARKS if found.get(key)]
        if not marks:
            raise DataError(
                f"The server of {where} sends neither ETag nor Last-Modified, so a change of the file during the run would not be noticed. "
                "Download the file, and pass the copy."
            )
        return [found.get("size"), str(marks[0])]
    path = Path(where)
    if str(where) == STDIN or (path.exists() and not path.is_file()):
        raise DataError(f"{where} is not a file that can be read several times. Save it to a file first.")
    with open_source(path):  # its errors
        return [path.stat().st_size, path.stat().st_mtime_ns]


def reopenable(source: Source, *, plain: bool = False) -> tuple[Path, ExitStack]:
    """A file with the content of an input, for readers that open it more than once. Reads all of `source`, or nothing.

    Args:
        source: The input.
        plain: The file must not be compressed.

    Returns:
        The path, and a context that ends the use of it: the input itself, or a temporary copy.
    """
    if source.path and source.path.is_file() and not (plain and source.compression):
        return source.path, ExitStack()
    with ExitStack() as context:
        copy = context.enter_context(tempfile.NamedTemporaryFile(prefix="nemo_cmim-"))
        for block in source.blocks():
            copy.write(block)
        copy.flush()
        return Path(copy.name), context.pop_all()


def open_decompressed(path: Path) -> IO[bytes]:
    """Opens a file for reading decompressed bytes at any offset.

    Raises:
        OSError: If the file cannot be opened.
    """
    file: IO[bytes] = _OPENERS[compression_of(path)](path)
    return file


def open_at(where: str | Path, offset: int) -> IO[bytes]:
    """Opens a file, or a URL that is not compressed, for reading decompressed bytes from an offset on.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        file = _buffered(_open_remote(str(where))) if "://" in str(where) else open_decompressed(Path(where))
        if offset:
            file.seek(offset)
    except (*READ_ERRORS, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise damaged_file(where, error, "byte 0") from error
    return file


def decompress(path: Path, target: Path) -> None:
    """Writes the decompressed contents of a file to `target`.

    Raises:
        DataError: If the file is damaged.
    """
    with atomic_write(target) as staging, staging.open("wb") as file, open_source(path) as source:
        for block in source.blocks():
            file.write(block)


def compression_of(what: Path | bytes) -> str:
    """`gz`, `bz2`, `xz` or `zst` for a file, or for its first bytes; empty if it is not compressed."""
    if isinstance(what, Path):
        with what.open("rb") as file:
            what = file.read(max(map(len, _MAGIC)))
    return next((name for magic, name in _MAGIC.items() if what.startswith(magic)), "")


def damaged_file(name: str | Path, error: Exception, after: str = "") -> DataError:
    """The error for a file that cannot be read to its end, or beyond `after`, such as "line 7"."""
    place = f" after {after}" if after else ""
    return DataError(
        f"{name} cannot be read{place}: {str(error).rstrip('.')}. The file is damaged, truncated, or not in the format of its name: "
        "download or compress the file again."
    )


class _Chained(io.RawIOBase):
    """Bytes that were read from a stream already, then the rest of the stream."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._first[: len(buffer)] or self._rest.read(len(buffer))
        self._first = self._first[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _chained(first: bytes, rest: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Chained(first, rest), 1 << 14)


def _open_plain(file: Path | IO[bytes]) -> IO[bytes]:
    return file.open("rb") if isinstance(file, Path) else file


def _open_zst(file: Path | IO[bytes]) -> IO[bytes]:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(_open_plain(file), "r"), "zstd"))


_OPENERS: dict[str, Callable[[Any], Any]] = {"": _open_plain, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open, "zst": _open_zst}
