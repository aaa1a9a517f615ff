"""Files and folders that commands write: what exists is kept, unless it is ours and may be replaced."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.files import atomic_write
from nemo_cmim.outputs import MANIFEST, check_file, check_folder, write_file, write_folder

LONGEST = "ü" * 125 + ".html"  # 255 bytes
NAMES = ("a.txt", "b.txt", "c.txt")


def put(path: Path, text: str, *, overwrite: bool = False) -> None:
    with write_file(path, overwrite=overwrite) as staging:
        staging.write_text(text)


def put_all(folder: Path, text: str, *names: str, overwrite: bool = False) -> None:
    with write_folder(folder, NAMES, overwrite=overwrite) as staging:
        for name in names:
            (staging / name).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST
    }


@pytest.mark.parametrize("name", ["a.txt", LONGEST, "x" * 255])
def test_a_file_is_written_once_and_replaced_with_overwrite(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, "old")
    for refused in (lambda: check_file(tmp_path / name, overwrite=False), lambda: put(tmp_path / name, "new")):
        with pytest.raises(DataError, match=r"already exists.*overwrite=True"):
            refused()
    assert tree(tmp_path) == {name: "old"}
    put(tmp_path / name, "new", overwrite=True)
    assert tree(tmp_path) == {name: "new"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (lambda path: os.mkfifo(path), "not a file"),
        (lambda path: path.symlink_to("nowhere"), "not a file"),
    ],
)
def test_what_is_not_a_file_is_kept(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out").lstat()
    with pytest.raises(DataError, match=message):
        put(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out").lstat().st_ino == before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_replaced_and_not_the_file_behind_it(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    put(tmp_path / "link", "new", overwrite=True)
    assert tree(tmp_path) == {"mine": "mine", "link": "new"} and not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/out", "cannot be written: there is no folder .*no. Create"),
        ("file/out", "there is no folder .*file"),
        ("x" * 256, "cannot be written: File name too long"),
        ("/dev/full", "/dev/full is a link or device"),
        ("/proc/out", "/proc/out cannot be written: No such file"),
        ("", "is a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_early_error(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=message):
        check_file(tmp_path / path, overwrite=True)
    assert tree(tmp_path) == {"file": ""}


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / "out", "old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(DataError, match=r"out cannot be written: No space left on device"),
        write_file(tmp_path / "out", overwrite=True) as staging,
    ):
        staging.write_text("half")
        raise full
    assert tree(tmp_path) == {"out": "old"}


def test_an_error_of_an_atomic_write_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError) as caught, atomic_write(tmp_path / "file" / "out"):
        (tmp_path / "file").write_text("")
    assert caught.value.filename == str(tmp_path / "file" / "out")
    with pytest.raises(OSError) as full, atomic_write(tmp_path / "out") as staging:
        staging.symlink_to("/dev/full")
        staging.write_text("x")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / "out"))
    for folder in (Path(), Path("/"), tmp_path):
        with pytest.raises(IsADirectoryError) as no_file, atomic_write(folder) as staging:
            staging.write_text("x")
        assert no_file.value.filename == str(folder)


def test_a_folder_is_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    check_folder(folder, NAMES, overwrite=False)
    assert not (tmp_path / "new").exists()
    put_all(folder, "old", "a.txt", "b.txt")
    assert tree(folder) == {"a.txt": "old", "b.txt": "old"}
    assert json.loads((folder / MANIFEST).read_text())["files"] == ["a.txt", "b.txt"]
    with pytest.raises(DataError, match=r"is not empty.*overwrite=True"):
        put_all(folder, "new", "a.txt")
    assert tree(folder) == {"a.txt": "old", "b.txt": "old"}


def test_overwrite_replaces_and_removes_what_the_manifest_lists_and_nothing_else(tmp_path: Path) -> None:
    put_all(tmp_path, "old", "a.txt", "b.txt")
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("mine")
    put_all(tmp_path, "new", "b.txt", "c.txt", overwrite=True)
    assert tree(tmp_path) == {"b.txt": "new", "c.txt": "new", "mine.txt": "mine", "sub/a.txt": "mine"}
    put_all(tmp_path, "newer", "a.txt", overwrite=True)
    assert tree(tmp_path) == {"a.txt": "newer", "mine.txt": "mine", "sub/a.txt": "mine"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.txt", "mine"),
        (MANIFEST, "{}"),
        (MANIFEST, "[1]"),
        (MANIFEST, "not JSON"),
        (MANIFEST, '{"format": "nemo_cmim token store 3", "files": {"a.txt": {}}}'),
        (MANIFEST, '{"format": "nemo_cmim output 1", "files": ["../mine"]}'),
        (MANIFEST, '{"format": "nemo_cmim output 1", "files": [".."]}'),
        (MANIFEST, '{"format": "nemo_cmim output 1", "files": [1]}'),
    ],
)
def test_a_file_that_is_not_ours_is_not_replaced(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(text)
    for refused in (
        lambda: check_folder(tmp_path / "out", NAMES, overwrite=True),
        lambda: put_all(tmp_path / "out", "new", "b.txt", overwrite=True),
    ):
        with pytest.raises(DataError, match=r"not replaced\. Rename"):
            refused()
    assert (tmp_path / "out" / name).read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["mine", "out", name])


def test_a_folder_of_the_name_of_a_listed_file_is_not_removed(tmp_path: Path) -> None:
    put_all(tmp_path, "old", "a.txt", "b.txt")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(DataError, match=r"b\.txt exists.*Rename b\.txt"):
        put_all(tmp_path, "new", "a.txt", overwrite=True)
    assert tree(tmp_path) == {"a.txt": "old"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failure_leaves_a_folder_as_it_was(tmp_path: Path, error: BaseException) -> None:
    put_all(tmp_path / "old", "old", "a.txt")
    for folder in (tmp_path / "old", tmp_path / "new" / "out"):
        expected = DataError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected), write_folder(folder, NAMES, overwrite=True) as staging:
            (staging / "b.txt").write_text("half")
            raise error
    assert tree(tmp_path) == {"old/a.txt": "old"} and not (tmp_path / "new").exists()
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["a.txt", MANIFEST]


def test_an_interruption_between_the_moves_leaves_a_folder_that_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, "old", "a.txt", "b.txt")
    replace = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if target.name == "c.txt":
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        put_all(tmp_path, "new", "b.txt", "c.txt", overwrite=True)
    assert tree(tmp_path) == {"a.txt": "old", "b.txt": "new"}
    put_all(tmp_path, "newer", "c.txt", overwrite=True)
    assert tree(tmp_path) == {"c.txt": "newer"}


@pytest.mark.parametrize("path", ["file", "file/out", "x" * 256, "/proc/out"])
def test_a_folder_that_cannot_be_written_is_an_early_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"is not a folder|cannot be written"):
        check_folder(tmp_path / path, NAMES, overwrite=True)
    assert tree(tmp_path) == {"file": ""}
