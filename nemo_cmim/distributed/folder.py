"""A folder that several machines write to: a path that all of them see, or a URL of an object store.

A file is written completely or not at all. On a file system, it has a temporary name until it is complete. An object store makes an
object visible when it is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import atomic_write, lock, sha256_of, sha256_of_stream
from ..tables.sources import missing_storage

__all__ = ["LEASE", "Folder"]

_LOCAL = re.compile(r"^(file|local)://(localhost(?=/))?")
LEASE = re.compile(r"_lease-[0-9a-f]{32}\.json")
"""Names of leases, see `Folder.locked`."""

_RENEWED_S = 20.0
_EXPIRES_S = 90.0


@dataclass(frozen=True)
class Folder:
    """A folder; it can be sent to other processes.

    Attributes:
        where: Absolute path, or URL.
    """

    where: str

    @classmethod
    def of(cls, where: str | Path) -> Folder:
        """The folder that a user names.

        Raises:
            DataError: If it is `-`.
            ConfigError: If a URL needs a package that is not installed.
        """
        text = _LOCAL.sub("", str(where))
        if text == "-":
            raise DataError("'-' stands for standard output, to which a folder cannot be written. Name a folder.")
        folder = cls(text.rstrip("/") if "://" in text else str(Path(text).absolute()))
        if not folder.is_local:
            _file_system(folder.where)
        return folder

    @property
    def is_local(self) -> bool:
        """Whether it is a path."""
        return "://" not in self.where

    def __str__(self) -> str:
        return self.where

    def __truediv__(self, name: str) -> str:
        return f"{self.where}/{name}"

    def is_dir(self) -> bool:
        """Whether this process can see the folder."""
        return Path(self.where).is_dir() if self.is_local else bool(self.sizes())

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Names of the files in the folder, or in a folder in it, with their sizes in bytes. Those of folders are 0."""
        if self.is_local:
            path = Path(self.where, folder)
            return {one.name: one.stat().st_size if one.is_file() else 0 for one in path.iterdir()} if path.is_dir() else {}
        files, root = _file_system(f"{self.where}/{folder}".rstrip("/"))
        files.invalidate_cache()
        with suppress(FileNotFoundError):
            return {one["name"].rstrip("/").rsplit("/", 1)[-1]: one["size"] or 0 for one in files.ls(root, detail=True)}
        return {}

    def read(self, name: str) -> Any:
        """The content of a JSON file; None if there is no such file."""
        try:
            if self.is_local:
                return json.loads(Path(self.where, name).read_bytes())
            files, root = _file_system(self / name)
            files.invalidate_cache()
            return json.loads(files.cat_file(root))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_json(self, name: str) -> bool:
        """Whether there is no file of this name, or one of JSON."""
        try:
            self.read(name)
        except ValueError:
            return False
        return True

    def sha256(self, name: str) -> str:
        """SHA-256 of a file."""
        if self.is_local:
            return sha256_of(Path(self.where, name))
        files, root = _file_system(self / name)
        with files.open(root, "rb") as file:
            return sha256_of_stream(file)

    def read_all(self, folder: str) -> dict[str, Any]:
        """The contents of the JSON files in a folder, by their names without `.json`; without damaged ones."""
        names = sorted(name for name in self.sizes(folder) if name.endswith(".json") and not name.startswith("."))
        if self.is_local or not names:
            contents = {name: Path(self.where, folder, name).read_bytes() for name in names}
        else:
            files, root = _file_system(f"{self.where}/{folder}")
            contents = files.cat([f"{root}/{name}" for name in names])  # at the same time
        found = {}
        for path, content in contents.items():
            with suppress(ValueError):
                found[path.rsplit("/", 1)[-1].removesuffix(".json")] = json.loads(content)
        return found

    def save(self, name: str, content: Any) -> None:
        """Writes a JSON file."""
        with self.write(name) as path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def write(self, name: str, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """Yields a temporary path to write to, which becomes the file of this name if the block succeeds.

        Args:
            name: Name of the file, also in a folder in this folder.
            check: Called when the file is complete, before it gets its name; it may raise an error.
        """
        if self.is_local:
            target = Path(self.where, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as staging:
                yield staging
                check()
            return
        with tempfile.TemporaryDirectory(prefix="nemo_cmim-") as temporary:
            staging = Path(temporary, "file")
            yield staging
            check()
            files, root = _file_system(self / name)
            files.put_file(str(staging), root)

    def remove(self, name: str) -> None:
        """Removes a file or a folder, if there is one of this name."""
        if self.is_local:
            path = Path(self.where, name)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return
        files, root = _file_system(self / name)
        with suppress(FileNotFoundError):
            files.rm(root, recursive=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Context in which no other process writes to the folder.

        On an object store, which has no locks, each process has a lease: a file that is renewed as long as the process lives. Every
        process writes its own before it looks for others, so of two that start at the same time, at least one finds the other and stops.

        Raises:
            ConfigError: If another process has locked the folder.
            DataError: If it is a file.
        """
        hint = "Wait for that run, stop it, or name a different folder."
        if self.is_local:
            path = Path(os.path.realpath(self.where))  # a folder has one lock, whatever it is called
            if path.is_file():
                raise DataError(f"{self} is a file, but the embeddings are written to a folder. Name a folder.")
            path.mkdir(parents=True, exist_ok=True)
            with lock(path.with_name(f".{path.name}.lock"), self.where, hint):
                yield
            return
        name = f"_lease-{uuid.uuid4().hex}.json"
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        stopped = threading.Event()

        def renew() -> None:
            while not stopped.wait(_RENEWED_S):
                with suppress(Exception):  # the next one may succeed
                    if self.read(name):  # not removed by a process that found it expired
                        self.save(name, {"owner": owner, "time": time.time()})

        self._check_leases(hint)
        self.save(name, {"owner": owner, "time": time.time()})
        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            self._check_leases(hint, own=name)
            yield
        finally:
            stopped.set()
            thread.join()
            self.remove(name)

    def _check_leases(self, hint: str, own: str = "") -> None:
        """Removes expired leases.

        Raises:
            ConfigError: If there is another one.
        """
        for name in [name for name in self.sizes() if LEASE.fullmatch(name) and name != own]:
            found = self.read(name)
            if found and (age := time.time() - found["time"]) < _EXPIRES_S:
                raise ConfigError(
                    f"{self} is in use by {found['owner']}, which last reported {max(age, 0):.0f} s ago. {hint} If it was killed, try "
                    f"again {_EXPIRES_S:.0f} s after it reported."
                )
            self.remove(name)


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        import fsspec.core

        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise missing_storage(url, error) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{url} cannot be written: {str(error).splitlines()[0]}.") from error
    return files, str(path)
