"""Files and folders that a command writes for its user. Nothing that exists is replaced unless the user allows it.

`check_file` and `check_folder` raise their errors before the work starts. `write_file` and `write_folder` check again and write
atomically. With `overwrite`, a file is replaced by the new one. In a folder, only files that an earlier call wrote are replaced or
removed: its `manifest.json` lists them. Files of the user stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DataError
from .files import atomic_write, fsync

__all__ = ["MANIFEST", "check_file", "check_folder", "write_file", "write_folder"]

MANIFEST = "manifest.json"
_FORMAT = "nemo_cmim output 1"
_LOCAL_URL = re.compile(r"^(file|local)://(localhost(?=/))?")


def check_file(path: str | Path, *, overwrite: bool, others: Iterable[str | Path] = ()) -> None:
    """Checks that a file can be written.

    Args:
        path: The file.
        overwrite: Allow that it exists.
        others: Inputs and other outputs of the same call, which must be other files. If one is a folder, the file must not be in it.

    Raises:
        DataError: If the file exists and `overwrite` is False, if it is one of `others` or in one, a folder, or `-`, or if it
            cannot be created.
    """
    if str(path) == "-":
        raise DataError("'-' stands for standard output, to which this cannot be written. Name a file.")
    path = Path(path)
    with _reported(path):
        _check_differs(path, others)
        if _stands(path):
            if not path.is_file():
                raise DataError(
                    f"{path} is a {'folder' if path.is_dir() else 'link or device'}, not a file. Name a different file."
                )
            if not overwrite:
                raise DataError(f"{path} already exists. Name a different file, or pass overwrite=True to replace it.")
        if not path.parent.is_dir():
            raise DataError(f"{path} cannot be written: there is no folder {path.parent}. Create the folder first.")
        _probe(path.parent)


@contextmanager
def write_file(path: str | Path, *, overwrite: bool, staging: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path to write to, which becomes `path` if the block succeeds.

    Args:
        path: See `check_file`, also for errors.
        overwrite: See `check_file`.
        staging: The temporary path, on the same file system; None: a new one in the same folder.
    """
    check_file(path, overwrite=overwrite)
    with _reported(Path(path)), atomic_write(Path(path), staging) as temporary:
        yield temporary


def check_folder(folder: str | Path, names: Sequence[str], *, overwrite: bool, others: Iterable[str | Path] = ()) -> None:
    """Checks that files of these names can be written to a folder.

    Args:
        folder: The folder; it need not exist.
        names: Names of all files that may be written.
        overwrite: Allow that the folder is not empty.
        others: Inputs of the same call, which must not be among the files that are replaced or removed.

    Raises:
        DataError: If the folder is not empty and `overwrite` is False, if it contains one of the files and its manifest does not list
            that file, if one of the files is an input, or if the folder is `-` or cannot be written.
    """
    if str(folder) == "-":
        raise DataError("'-' stands for standard output, to which a folder cannot be written. Name a folder.")
    folder = Path(folder)
    with _reported(folder):
        if not _stands(folder):
            _probe(next(parent for parent in folder.absolute().parents if _stands(parent)))
            return
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder. Name a different folder.")
        if any(folder.iterdir()):
            if not overwrite:
                raise DataError(
                    f"{folder} already exists and is not empty. Name a different folder, or pass overwrite=True to replace the files "
                    f"that its {MANIFEST} lists."
                )
            _check_ours(folder, names)
            for name in {*names, *_listed(folder)}:
                _check_differs(folder / name, others)
        _probe(folder)


@contextmanager
def write_folder(folder: str | Path, names: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder to write to. If the block succeeds, its files are moved to `folder`, with a manifest that lists them.

    Files that the previous manifest lists are replaced or removed. If the block fails, `folder` stays as it was. Arguments and errors
    are those of `check_folder`.
    """
    check_folder(folder, names, overwrite=overwrite)
    folder = Path(folder)
    with _reported(folder):
        created = [path for path in (folder, *folder.parents) if not _stands(path)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".", dir=folder))
            try:
                yield staging
                _publish(staging, folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except BaseException:
            with suppress(OSError):  # not empty, or not created
                for path in created:
                    path.rmdir()
            raise


def _publish(staging: Path, folder: Path) -> None:
    """Moves the files, then removes those of the previous manifest. At any moment, the manifest lists all of them."""
    new, old = sorted(path.name for path in staging.iterdir()), _listed(folder)
    _check_ours(folder, new)
    for name in new:
        fsync(staging / name)
    _save_manifest(folder, sorted({*new, *old} - {MANIFEST}))
    for name in new:
        (staging / name).replace(folder / name)
    for name in old - {MANIFEST, *new}:
        (folder / name).unlink(missing_ok=True)
    _save_manifest(folder, new)
    fsync(folder)


def _save_manifest(folder: Path, names: list[str]) -> None:
    with atomic_write(folder / MANIFEST) as staging:
        staging.write_text(json.dumps({"format": _FORMAT, "files": names}, indent=1) + "\n", encoding="utf-8")


def _listed(folder: Path) -> set[str]:
    """The manifest and the files that it lists; empty if the folder has no manifest of this format."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = content["files"] if content["format"] == _FORMAT else ()
        is_valid = all(name == Path(name).name for name in names)  # in this folder, not in another
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return set()
    return {MANIFEST, *names} if names and is_valid else set()


def _check_ours(folder: Path, names: Sequence[str]) -> None:
    """Raises an error unless each file that would be replaced or removed is one that the manifest lists."""
    listed = _listed(folder)
    for name in sorted({MANIFEST, *names, *listed}):
        path = folder / name
        if _stands(path) and (name not in listed or (path.is_dir() and not path.is_symlink())):
            raise DataError(
                f"{path} exists, and the {MANIFEST} of an earlier output does not list it as a file, so it is not replaced. Rename "
                f"{name}, or name a different folder."
            )


def _stands(path: Path) -> bool:
    """Whether there is anything of this name, such as a broken link."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _check_differs(path: Path, others: Iterable[str | Path]) -> None:
    """Raises an error if the path is the same file as one of the others, also by a link or by another name of its folder, or in one."""
    for one in others:
        if str(one) == "-" and _is_stdin(path):
            raise DataError(f"{path} is also standard input. Name a different file.")
        other = Path(_LOCAL_URL.sub("", str(one)))
        if path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other)):
            raise DataError(f"{path} is also {'an input' if other.exists() else 'another output'}. Name a different file.")
        if other.is_dir() and path.resolve().is_relative_to(other.resolve()):
            raise DataError(f"{path} is in the folder {other}, which is an input. Name a file in a different folder.")


def _is_stdin(path: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):  # without a file behind it
        return path.exists() and os.path.samestat(os.fstat(sys.stdin.fileno()), path.stat())
    return False


def _probe(folder: Path) -> None:
    """Raises an OSError if no file can be created in the folder."""
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # of standard output
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}. Choose a different place.") from error
