"""Atomic writes, locks between processes, and checksums of files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import ConfigError

__all__ = ["acquire_lock", "atomic_write", "fsync", "lock", "sha256_of"]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a write, which does not say to which file


def acquire_lock(path: Path, name: str, hint: str) -> IO[str]:
    """Locks a file until the returned file is closed or this process ends, even by SIGKILL. The file is created if it is missing.

    Args:
        path: The file.
        name: What the error message calls the locked resource.
        hint: A sentence for the error message: how to fix it.

    Raises:
        ConfigError: If another process has locked the file. The message names that process.
        OSError: If the file cannot be written.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise ConfigError(f"{name} is in use by {owner}. {hint}") from error
    if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # its owner removed it in the meantime
        file.close()
        return acquire_lock(path, name, hint)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


@contextmanager
def lock(path: Path, name: str, hint: str) -> Iterator[None]:
    """Locks a file for the duration of a block, then removes the file. See `acquire_lock`."""
    with acquire_lock(path, name, hint):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to. It is synced to disk and renamed to `path` if the block succeeds, and removed otherwise.

    Args:
        path: The file.
        staging: The temporary path; None: a new one in the same folder.

    Raises:
        OSError: If the file cannot be written. Its `filename` is `path`.
    """
    if not path.name:  # "." or "/", which has no name to derive one from
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A new name is not longer than the longest name that a file can have.
    staging = staging or path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}")
    try:
        yield staging
        fsync(staging)
        staging.replace(path)
    except OSError as error:
        if str(error.filename) == str(staging) or error.errno in _DISK_FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):  # it was renamed, or never created
            staging.unlink()


def fsync(path: Path) -> None:
    """Makes the operating system write a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: IO[bytes]) -> str:
    """SHA-256 of the bytes of a stream, in hex."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
