"""Libraries with lost, damaged or foreign files, and inputs that change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemo_cmim.distributed import LibraryManifest, embed_files, parts
from nemo_cmim.distributed.job import UNFINISHED
from nemo_cmim.errors import DataError, InvalidSmilesError
from tests.distributed.conftest import ROWS
from tests.distributed.test_embed_library import SETTINGS, contents


def test_a_library_that_lost_a_part_is_mended(source: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = embed_files(source, out, model=model_file, **SETTINGS)
    whole = contents(out)
    first, second = (out / part["name"] for part in manifest.parts[:2])
    first.write_bytes(whole[first.name][:500])
    second.unlink()
    embed_files(source, out, model=model_file, **SETTINGS)
    assert contents(out) == whole
    (out / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"of a library whose manifest.json is missing or damaged.*pass overwrite=True"):
        embed_files(source, out, model=model_file, **SETTINGS)
    embed_files(source, out, model=model_file, overwrite=True, **SETTINGS)
    assert contents(out) == whole


def test_files_of_the_user_are_kept(source: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed_files(source, out, model=model_file, **SETTINGS)
    own = [out / name for name in ("part-mine-12345678.parquet", "part-a-20240101.parquet", ".part-1.parquet.old", "notes.txt")]
    for path in own:
        path.write_text("mine")
    embed_files(source, out, model=model_file, overwrite=True, stored="int8", **SETTINGS)
    assert [path.read_text() for path in own] == ["mine"] * 4


def test_damaged_unfinished_work(source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, written = tmp_path / "out", []
    real = parts._write_parquet

    def fails_at_the_third(path: Path, *args: Any) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError("stopped")
        real(path, *args)

    monkeypatch.setattr(parts, "_write_parquet", fails_at_the_third)
    with pytest.raises(DataError, match="stopped"):
        embed_files(source, out, model=model_file, **SETTINGS)
    entries = sorted((out / UNFINISHED).glob("*/parts/*.json"))
    entries[0].write_text(entries[0].read_text()[:30])
    with pytest.raises(InvalidSmilesError, match="such rows are kept here"):
        embed_files(source, out, model=model_file, **{**SETTINGS, "on_invalid": "raise"})
    (out / UNFINISHED / "job.json").write_text("{")
    with pytest.raises(DataError, match=r"job\.json is damaged.*Pass overwrite=True to discard"):
        embed_files(source, out, model=model_file, **SETTINGS)
    manifest = embed_files(source, out, model=model_file, overwrite=True, **SETTINGS)
    assert manifest.counts["rows"] == ROWS
    with pytest.raises(InvalidSmilesError, match="3 such rows are kept here"):
        embed_files(source, out, model=model_file, **{**SETTINGS, "on_invalid": "raise"})


def test_a_kept_part_that_was_changed_is_computed_again(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    expected = embed_files(source, tmp_path / "whole", model=model_file, **SETTINGS)
    save = LibraryManifest.save

    def stopped(*_: object) -> None:
        raise OSError("stopped")

    monkeypatch.setattr(LibraryManifest, "save", stopped)
    with pytest.raises(DataError, match="stopped"):
        embed_files(source, out, model=model_file, **SETTINGS)
    monkeypatch.setattr(LibraryManifest, "save", save)
    changed, missing = (out / part["name"] for part in expected.parts[:2])
    content = changed.read_bytes()
    changed.write_bytes(bytes(len(content)))  # what a machine that lost power may leave: the same size, without content
    missing.unlink()
    kept = out / expected.parts[2]["name"]
    before = kept.stat().st_ino
    assert embed_files(source, out, model=model_file, **SETTINGS) == expected
    assert contents(out) == contents(tmp_path / "whole") and kept.stat().st_ino == before


def test_an_input_that_changes_while_it_is_read(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parts._write_parquet

    def changes(path: Path, *args: Any) -> None:
        real(path, *args)
        with source.open("a") as file:
            file.write("x,C\n")

    monkeypatch.setattr(parts, "_write_parquet", changes)
    with pytest.raises(DataError, match="was changed while it was being embedded"):
        embed_files(source, tmp_path / "out", model=model_file, **SETTINGS)
