"""Ranges of files of all formats: together, they are the rows of the whole file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.tables.layout import DETECT, ReadOptions
from nemo_cmim.tables.ranges import CutFile, cut_file, read_range
from nemo_cmim.tables.rows import MoleculeTable
from nemo_cmim.tables.sources import Source, source_state
from tests import file_server

RECORD = (
    "name {0}\n  RDKit\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0 0.0 0.0 C   0  0\nM  END\n>  <value {1}>\n{0}\n\n$$$$\n"
)
TEXTS = {
    "header.csv": "id,smiles\n" + "".join(f'"a\n{i}",{"C" * i}\n' for i in range(20)) + "\n\n \n",
    "empty_lines.smi": "".join(f"{'C' * i} n{i}  x\n" if i % 3 else "\n" for i in range(1, 20)),
    "no_name.smi": "\ufeffC\nCC\nCCC a\r\n",
    "windows.tsv": "smiles\tid\r\n" + "".join(f"C{i}\t{i}\r\n" for i in range(10)),
    "only_empty_at_the_end.smi": "C a\nCC b\n" + "\n" * 9,
    "structures.sdf": "".join(RECORD.format(i, i % 2) for i in range(7)),
    "quotes.csv": "sep=;\nsmiles;id\n" + "".join(f"{'C' * i};{i}\n" for i in range(1, 8)),
}


def no_copy(source: Source) -> str:
    raise AssertionError("not compressed")


def check_ranges(cut: CutFile, path: Path, options: ReadOptions = DETECT) -> None:
    """Checks that the ranges have the rows of the file, in order."""
    with MoleculeTable(path, options) as table:
        assert list(cut.names) == table.names and cut.unit == table.unit
        whole = list(table.blocks(1000))
    ranges = [list(read_range(cut, one, 2)) for one in cut.ranges]
    blocks = [block for blocks in ranges for block in blocks]
    assert [n for block in blocks for n in block.numbers] == [n for block in whole for n in block.numbers]
    assert [one for block in blocks for one in block.smiles] == [one for block in whole for one in block.smiles]
    problems = [block.problems.get(i) for block in blocks for i in range(len(block.smiles))]
    assert problems == [block.problems.get(i) for block in whole for i in range(len(block.smiles))]
    assert pa.concat_tables(block.rows for block in blocks).equals(pa.concat_tables(block.rows for block in whole))
    for one, found in zip(cut.ranges, ranges):
        assert sum(len(block.smiles) for block in found) <= one.rows


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_ranges_of_text_are_the_rows_of_the_file(name: str, rows: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[name].encode())
    check_ranges(cut_file(str(path), DETECT, rows, no_copy), path)


@pytest.mark.parametrize("name", ["header.csv", "structures.sdf"])
def test_a_compressed_file_is_read_from_its_copy(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(TEXTS[name].encode()))

    def copy(source: Source) -> str:
        (tmp_path / "copy").write_bytes(b"".join(source.blocks()))
        return str(tmp_path / "copy")

    cut = cut_file(str(path), DETECT, 3, copy)
    assert cut.place == str(tmp_path / "copy") and cut.name == str(path)
    check_ranges(cut, path)


@pytest.mark.parametrize("group", [2, 5, 40])
@pytest.mark.parametrize("rows", [1, 4, 7, 100])
def test_ranges_of_parquet_follow_its_row_groups(group: int, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"id": range(23), "SMILES": pa.array(["C" * i if i % 5 else None for i in range(23)], pa.large_string())})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    cut = cut_file(str(path), DETECT, rows, no_copy)
    check_ranges(cut, path)
    assert max(one.rows for one in cut.ranges) <= max(rows, 1) and list(cut.types) == ["int64", "large_string"]
    if rows == 7 and group == 5:
        assert [one.offset for one in cut.ranges] == [0, 5, 10, 15, 20]


def test_ranges_of_a_url(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for name in ("header.csv", "structures.sdf"):
        (tmp_path / name).write_bytes(TEXTS[name].encode())
        files.pipe(f"/ranges/{name}", TEXTS[name].encode())
        check_ranges(cut_file(f"memory://ranges/{name}", DETECT, 3, no_copy), tmp_path / name)
    before = source_state("memory://ranges/header.csv")
    files.pipe("/ranges/header.csv", b"smiles\nC\n")
    assert source_state("memory://ranges/header.csv") != before
    files.rm("/ranges", recursive=True)


@pytest.mark.parametrize("name", ["header.csv", "structures.sdf", "table.parquet"])
def test_a_web_server_that_sends_whole_files_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setitem(pytest.importorskip("fsspec.config").conf, "http", {"block_size": 16})  # bytes; files have several blocks
    path = tmp_path / name
    if name in TEXTS:
        path.write_bytes(TEXTS[name].encode())
    else:
        pyarrow.parquet.write_table(pa.table({"smiles": ["C" * i for i in range(1, 9)]}), path)
    monkeypatch.setattr(file_server.Handler, "do_GET", lambda self: self.serve(ignore_range=True))

    def copy(source: Source) -> str:
        (tmp_path / "copy").write_bytes(b"".join(source.blocks()))
        return str(tmp_path / "copy")

    with file_server.serving() as server:
        server.files[f"/{name}"] = path.read_bytes()
        cut = cut_file(server.url(f"/{name}"), DETECT, 3, copy)
        assert cut.place == str(tmp_path / "copy")
        check_ranges(cut, path)
        with MoleculeTable(cut.name, DETECT) as table:
            read = [smiles for block in table.blocks(5) for smiles in block.smiles]
        with MoleculeTable(path, DETECT) as table:
            assert read == [smiles for block in table.blocks(5) for smiles in block.smiles]


@pytest.mark.parametrize(("status", "part"), [(500, False), (403, False), (403, True)])
def test_errors_of_a_web_server_are_errors_of_the_file(
    status: int, part: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")

    def answer(handler: file_server.Handler) -> None:
        if handler.headers["Range"] or not part:
            handler.respond(status, b"no")
        else:
            handler.serve()

    monkeypatch.setattr(file_server.Handler, "do_GET", answer)
    with file_server.serving() as server:
        server.files["/in.csv"] = TEXTS["header.csv"].encode()
        with pytest.raises(DataError, match=rf"in\.csv cannot be read: {status}"):
            cut_file(server.url("/in.csv"), DETECT, 3, no_copy)


def test_a_web_server_that_does_not_tell_of_changes() -> None:
    pytest.importorskip("aiohttp")
    with file_server.serving() as server:
        server.files["/in.csv"] = b"smiles\nC\n"
        with pytest.raises(DataError, match=r"sends neither ETag nor Last-Modified.* Download the file"):
            source_state(server.url("/in.csv"))
        server.etags["/in.csv"] = '"1"'
        assert source_state(server.url("/in.csv")) == [9, '"1"']


def test_errors_are_those_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,smiles\n" + "1,C\n" * 10 + "1,C,extra\n" + "1,C\n" * 10)
    cut = cut_file(str(path), DETECT, 4, no_copy)
    assert [len(list(read_range(cut, one, 10))) for one in cut.ranges[:2]] == [1, 1]
    with pytest.raises(DataError, match=r"in\.csv, line 12: it has 3 columns, but the file has 2"):
        list(read_range(cut, cut.ranges[2], 10))
    path.write_text('id,smiles,"open\n1,C,1\n')
    with pytest.raises(DataError, match="quotation mark opens a cell"):
        cut_file(str(path), DETECT, 4, no_copy)
    path.write_text("smiles,smiles\nC,C\n")
    with pytest.raises(DataError, match="2 columns"):
        cut_file(str(path), ReadOptions(smiles="1"), 4, no_copy)
    with pytest.raises(DataError, match="not a file that can be read several times"):
        source_state("-")
