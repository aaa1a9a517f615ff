"""Compressed inputs of `prepare`: each is decompressed once, whatever the number of chunks, and gives what the plain file gives."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.prepare.chunks import plan_chunks
from nemo_cmim.prepare.cluster import WorkersLostError
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.tables.readers import find_layout, find_starts

SETTINGS: dict[str, Any] = {"piece_lines": 25, "processes": 1, "progress": False}
LARGE = {**SETTINGS, "piece_lines": 300}  # for `source`
COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress}


def content_of(suffix: str, smiles: list[str]) -> bytes:
    """Molecules, duplicates and bad lines as a file with this suffix."""
    rows = [*smiles, "x", *smiles[:30]]
    if suffix == ".parquet":
        file = io.BytesIO()
        pandas.DataFrame({"name": range(len(rows)), "smiles": rows}).to_parquet(file, row_group_size=50)
        return file.getvalue()
    if suffix == ".csv":
        text = "name,smiles\n" + "".join(f'"two\nlines",{one}\n' for one in rows) + '3,"never closed\n4,CCBr\n'
    else:
        text = "smiles zinc_id\n" + "".join(f"{one} {number}\n" for number, one in enumerate(rows))
    return text.encode() + b"C\xe9,1"


def results_of(folder: Path) -> tuple[dict[str, bytes], list[list[str]]]:
    """All files whose bytes do not depend on the names of inputs, and the rejected lines without these names."""
    with gzip.open(folder / "rejected.tsv.gz", "rt", newline="") as stream:
        rejected = [[line, reason.split(" of ")[0], text] for _, line, reason, text in csv.reader(stream, delimiter="\t")]
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: content for name, content in files.items() if name not in ("manifest.json", "rejected.tsv.gz")}, rejected


@pytest.mark.parametrize("name", ["a.smi.gz", "a.txt.xz", "a.csv.gz", "a.csv.xz", "a.parquet.gz"])
def test_a_compressed_input_gives_the_same_as_a_plain_one(name: str, tmp_path: Path, made_up_smiles: list[str]) -> None:
    plain = tmp_path / Path(name).stem
    plain.write_bytes(content_of(plain.suffix, made_up_smiles[:100]))
    (tmp_path / name).write_bytes(COMPRESS[Path(name).suffix](plain.read_bytes()))
    for limit in (None, 37):
        for path in (plain, tmp_path / name):
            manifest = prepare([path], tmp_path / f"out{path.suffix}", limit=limit, overwrite=True, **SETTINGS)
            assert manifest.counts["read"] == limit or len(manifest.rejected) > 1
        assert results_of(tmp_path / f"out{plain.suffix}") == results_of(tmp_path / f"out{Path(name).suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {plain.name, name, f"out{plain.suffix}", f"out{Path(name).suffix}"}


@pytest.fixture
def decompressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of bytes that gzip decompressed so far, one for each read."""
    sizes: list[int] = []
    read = gzip._GzipReader.read  # type: ignore[attr-defined]

    def counted(reader: Any, size: int = -1) -> bytes:
        content: bytes = read(reader, size)
        sizes.append(len(content))
        return content

    monkeypatch.setattr("gzip._GzipReader.read", counted)
    return sizes


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of 1,200 long lines, which is several buffers of gzip when decompressed."""
    text = "".join(f"{'C' * (number % 9 + 1)}{'N' * (number // 300 % 2)}O {number:0400}\n" for number in range(1200))
    (tmp_path / "in.smi.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path / "in.smi.gz"


BUFFER = 1 << 17  # upper bound of what gzip decompresses to give the first line


@pytest.mark.parametrize("piece_lines", [600, 60])
def test_an_input_is_decompressed_once(source: Path, decompressed: list[int], tmp_path: Path, piece_lines: int) -> None:
    size = len(gzip.decompress(source.read_bytes()))
    decompressed.clear()
    prepare([source], tmp_path / "out", **{**LARGE, "piece_lines": piece_lines})
    assert BUFFER < size <= sum(decompressed) <= size + BUFFER


@pytest.mark.parametrize("place", ["plan_chunks", "merge_range", "write_rejected"])
def test_a_resumed_run_does_not_decompress_again(
    source: Path, decompressed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupt(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    prepare([source], tmp_path / "expected", **LARGE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"nemo_cmim.prepare.prepare.{place}", interrupt)
        prepare([source], tmp_path / "out", **LARGE)
    decompressed.clear()
    prepare([source], tmp_path / "out", **LARGE)
    assert sum(decompressed) == 0
    assert results_of(tmp_path / "out") == results_of(tmp_path / "expected")


@pytest.mark.parametrize(("error", "is_kept"), [(WorkersLostError("lost"), True), (DataError("damaged"), False)])
def test_scans_are_kept_if_workers_are_lost_but_not_if_an_input_must_be_fixed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: DataError, is_kept: bool
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(DataError, match=str(error)):
        patch.setattr("nemo_cmim.prepare.prepare.plan_chunks", fail)
        prepare([source], tmp_path / "out", **LARGE)
    assert any(tmp_path.rglob("inputs/*.json")) == is_kept


def test_unfinished_work_of_an_older_version_and_partial_copies(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version scanned without a copy. A scan that was killed leaves a part of a copy, which is removed."""
    prepare([source], tmp_path / "expected", **LARGE)

    def interrupt(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("nemo_cmim.prepare.prepare.plan_chunks", interrupt)
        prepare([source], tmp_path / "out", **LARGE)
    (scan,) = tmp_path.rglob("inputs/*.json")
    scan.write_text(json.dumps({name: value for name, value in json.loads(scan.read_text()).items() if name != "copy"}))
    partial = scan.with_name(".000000.smi.0123")
    partial.write_bytes(b"CCO 1")
    seen: list[bool] = []
    with monkeypatch.context() as patch:
        plan = plan_chunks
        patch.setattr("nemo_cmim.prepare.prepare.plan_chunks", lambda *given: (seen.append(partial.exists()), plan(*given))[1])
        prepare([source], tmp_path / "out", **LARGE)
    assert seen == [False]
    assert results_of(tmp_path / "out") == results_of(tmp_path / "expected")


def test_a_limit_also_limits_what_is_decompressed(source: Path, decompressed: list[int], tmp_path: Path) -> None:
    compressed = source.read_bytes()
    source.write_bytes(compressed[: len(compressed) // 2])
    prepare([source], tmp_path / "out", limit=50, **LARGE)
    assert sum(decompressed) <= 2 * BUFFER
    with pytest.raises(DataError, match=r"in\.smi\.gz cannot be read after line \d+"):
        prepare([source], tmp_path / "all", **LARGE)


def test_a_compressed_input_that_changes_during_the_run_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(*arguments: Any) -> Any:
        source.write_bytes(gzip.compress(b"CCO 1\n"))
        return plan_chunks(*arguments)

    monkeypatch.setattr("nemo_cmim.prepare.prepare.plan_chunks", change)
    with pytest.raises(DataError, match=r"in\.smi\.gz was changed while it was being prepared.*--restart"):
        prepare([source], tmp_path / "out", **LARGE)


def test_errors_name_the_input_and_not_its_copy(tmp_path: Path) -> None:
    for name, content in (("a.parquet.gz", gzip.compress(b"PAR1")), ("b.parquet.gz", gzip.compress(b"PAR1")[:-6])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"^{tmp_path / name} cannot be read after \w+ \d+: .* The file is damaged"):
            prepare([tmp_path / name], tmp_path / "out", **LARGE)


def test_a_full_disk_does_not_look_like_a_damaged_input(source: Path) -> None:
    class FullDisk(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        find_starts(source, find_layout(source), 10, None, copy=FullDisk())
