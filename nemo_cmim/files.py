"""Files that appear whole or not at all, and folders that one process holds at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import ConfigError

__all__ = ["flush", "hold", "lock", "sha256_of", "whole_file"]


def hold(path: Path, name: str, hint: str) -> IO[str]:
    """Locks a file, which is made if need be, until it is closed or this process ends, even by SIGKILL.

    Args:
        path: The file.
        name: What the error says is in use.
        hint: A sentence on what to do then.

    Raises:
        ConfigError: Another process holds it; the message says which.
        OSError: It cannot be written.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise ConfigError(f"{name} is in use by {owner}. {hint}") from error
    if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # who held it removed it in the meantime
        file.close()
        return hold(path, name, hint)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


@contextmanager
def lock(path: Path, name: str, hint: str) -> Iterator[None]:
    """As `hold`, for the length of a block; the file is there only as long."""
    with hold(path, name, hint):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the name `path`, on disk for good, when the block ends well, and vanishes otherwise."""
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield staging
        flush(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Has the system write a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
