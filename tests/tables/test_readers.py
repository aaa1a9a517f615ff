"""Molecules of .smi, .txt, .csv and .parquet files, line by line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pyarrow
import pytest
from pyarrow import parquet

from nemo_cmim.errors import DataError
from nemo_cmim.tables.layout import DETECT, RawLine, ReadOptions
from nemo_cmim.tables.readers import find_layout, find_starts, read_lines

SMILES = ["CCO", "F/C=C\\F", "c1ccccc1[N+](=O)[O-]"]


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


def write(path: Path, content: bytes) -> Path:
    compressed = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(content)
    path.write_bytes(compressed)
    return path


def read_molecules(path: Path, options: ReadOptions = DETECT) -> Iterator[RawLine]:
    return read_lines(path, find_layout(path, options))


def smiles_of(path: Path, column: str | None = None) -> list[str]:
    lines = list(read_molecules(path, ReadOptions(column)))
    assert not any(line.problem for line in lines)
    return [line.smiles for line in lines]


def content_of(suffix: str, folder: Path) -> bytes:
    frame = pandas.DataFrame({"zinc_id": range(len(SMILES)), "SMILES": SMILES})
    if suffix == ".parquet":
        frame.to_parquet(folder / "plain.parquet")
        return (folder / "plain.parquet").read_bytes()
    separator = {".smi": " ", ".txt": "\t", ".csv": ","}[suffix]
    return frame.to_csv(index=False, sep=separator).encode()


@pytest.mark.parametrize(
    "ending", [".parquet", *(f"{suffix}{compression}" for suffix in (".smi", ".txt", ".csv") for compression in ("", ".gz", ".xz"))]
)
def test_every_format_with_every_compression(ending: str, tmp_path: Path) -> None:
    suffix = "." + ending.split(".")[1]
    path = write(tmp_path / f"molecules{ending}", content_of(suffix, tmp_path))
    lines = list(read_molecules(path))
    assert [line.smiles for line in lines] == SMILES
    assert [line.line_number for line in lines] == ([1, 2, 3] if suffix == ".parquet" else [2, 3, 4])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("no_header.smi", "CCO 1\nCN 2\n", ["CCO", "CN"]),
        ("no_id.smi", "CCO\nCN", ["CCO", "CN"]),
        ("id_with_spaces.smi", "CCO ethyl alcohol\nCN methyl amine", ["CCO", "CN"]),
        ("padded.smi", "smiles zinc_id\r\nCCO ZINC000000000001\r\n", ["CCO"]),
        ("many_columns.txt", "smiles\tzinc_id\tmwt\nCCO\t1\t46.07\nCN\t2\t\n", ["CCO", "CN"]),
        ("spaces.txt", "smiles zinc_id\nCCO 1\n", ["CCO"]),
        ("other_order.txt", "zinc_id\tsmiles\nfirst molecule\tCCO\n", ["CCO"]),
        ("upper.csv", "ID,SMILES\n1,CCO\n", ["CCO"]),
        ("canonical.csv", "canonical_SMILES,smiles_old\nCCO,OCC\n", ["CCO"]),
        ("marked.csv", "\ufeffsmiles,y\nCCO,1\n", ["CCO"]),
        ("quoted.csv", 'name,smiles\n"a, b\nc",CCO\n"say ""x""",CN\n', ["CCO", "CN"]),
        ("no_break_space.smi", "CC(=O)\u00a0O acid\n", ["CC(=O)\u00a0O"]),  # rejected later, not shortened to CC=O
        ("ideographic_space.csv", "smiles,y\nCC(=O)\u3000 ,1\n", ["CC(=O)\u3000"]),
        ("separator.txt", "CC(=O)\x1fO acid\n", ["CC(=O)\x1fO"]),
        ("no_last_line_end.csv", "zinc_id,smiles\n1,CCO\n2,CN", ["CCO", "CN"]),
    ],
)
def test_layouts(name: str, content: str, expected: list[str], tmp_path: Path) -> None:
    assert smiles_of(write(tmp_path / name, content.encode())) == expected


def test_a_column_by_name(tmp_path: Path) -> None:
    assert smiles_of(write(tmp_path / "a.csv", b"smiles,product\nCCO,CC=O\n"), "product") == ["CC=O"]
    assert smiles_of(write(tmp_path / "a.txt", b"smiles\tproduct\nCCO\tCC=O\n"), "product") == ["CC=O"]
    pandas.DataFrame({"product": pandas.Categorical(["CC=O"])}).to_parquet(tmp_path / "a.parquet")
    assert smiles_of(tmp_path / "a.parquet", "product") == ["CC=O"]


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        ("a.smi", "smiles zinc_id\nCCO 1\n\nCCCC", ["", "empty line", "line cut short"]),
        ("cut_id.smi", "smiles zinc_id\nCCO 12345\nCCN 12", ["", ""]),
        ("a.txt", "zinc_id\tsmiles\tx\n1\tCCO\t0\n2\t\t0\n3\n4\tCC", ["", "no SMILES", "no SMILES", "line cut short"]),
        ("a.csv", "smiles,y\nCCO,1\n,2\n\nCN", ["", "no SMILES", "empty line", "line cut short"]),
        ("wide.csv", "smiles,y\nCCO,1,2\nCN\n", ["wrong number of columns"] * 2),
    ],
)
def test_invalid_lines_have_a_problem_and_their_text(name: str, content: str, problems: list[str], tmp_path: Path) -> None:
    lines = list(read_molecules(write(tmp_path / name, content.encode())))
    assert [line.problem for line in lines] == problems
    assert [line.text for line in lines] == content.split("\n")[1 : len(lines) + 1]
    assert all((line.smiles == "") == (line.problem != "") for line in lines)


def test_missing_values_in_parquet(tmp_path: Path) -> None:
    pandas.DataFrame({"smiles": ["CCO", None, " "]}).to_parquet(tmp_path / "a.parquet")
    assert [line.problem for line in read_molecules(tmp_path / "a.parquet")] == ["", "no SMILES", "no SMILES"]


def test_a_line_number_counts_the_lines_inside_a_quoted_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'name,smiles\n"a\nb",CCO\nc,CN\n')
    lines = list(read_molecules(path))
    assert [(line.line_number, line.text) for line in lines] == [(2, '"a\nb",CCO'), (4, "c,CN")]


@pytest.mark.parametrize("name", ["2018.smi", "2020.smi"])
def test_tranche_files(name: str, tranche_files: Path) -> None:
    expected = [line.split(b" ")[0].decode() for line in (tranche_files / name).read_bytes().splitlines()[1:]]
    assert smiles_of(tranche_files / name) == expected


def test_a_truncated_tranche_file(tranche_files: Path) -> None:
    *complete, last = read_molecules(tranche_files / "truncated.smi")
    assert not any(line.problem for line in complete)
    assert last.problem == "line cut short"
    assert last.text == "CN(CC(=O)Nc1ccc(F)c(F)c1F)C(=O)NCC"


def test_megamolbart_csv(tranche_files: Path) -> None:
    path = tranche_files / "megamolbart.csv"
    assert smiles_of(path) == [line.split(",")[1] for line in path.read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.xlsx", b"PK\x03\x04...", r"a\.xlsx is a spreadsheet .* CSV"),
        ("both.csv", b"canonical_smiles,smiles\nCCO,OCC\n", "has 2 columns that may hold the SMILES: 'canonical_smiles', 'smiles'"),
        ("empty.smi", b"", r"empty\.smi holds no molecules"),
        ("empty.csv", b"", r"empty\.csv holds no molecules"),
        ("a.csv", b"name,structure\na,CCO\n", r"a\.csv has no column 'smiles'; .*'name', 'structure'.*--smiles"),
        ("page.smi", b"<!DOCTYPE html>\n<html>404</html>\n", r"page\.smi is a web page.*Download the file again"),
        ("not.smi.gz", b"", "holds no molecules"),
        ("a.parquet", b"CCO\n", r"a\.parquet cannot be read"),
    ],
)
def test_unreadable_files(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=expected):
        list(read_molecules(write(tmp_path / name, content)))


def test_a_missing_column(tmp_path: Path) -> None:
    for name in ("a.csv", "a.smi"):
        with pytest.raises(DataError, match=rf"{name} has no column 'structure'"):
            read_molecules(write(tmp_path / name, b"smiles,y\nCCO,1\n"), ReadOptions("structure"))


def test_a_parquet_column_of_numbers(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"smiles": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'smiles' holds int64, not text"):
        read_molecules(tmp_path / "a.parquet")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.smi is missing"):
        read_molecules(tmp_path / "nothing.smi")
    (tmp_path / "folder.smi").mkdir()
    with pytest.raises(DataError, match="is a folder; name the files in the folder"):
        read_molecules(tmp_path / "folder.smi")


@pytest.mark.parametrize("suffix", [".smi", ".csv"])
@pytest.mark.parametrize("compression", [".gz", ".xz"])
def test_a_truncated_compressed_file(suffix: str, compression: str, tmp_path: Path) -> None:
    lines = "".join(f"{'C' * (i % 97 + 1)}{'ON'[i % 2]},{i * 7919}\n" for i in range(4000))
    path = write(tmp_path / f"a{suffix}{compression}", ("smiles,n\n" + lines).encode())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"cannot be read after line \d+: .*truncated"):
        list(read_molecules(path))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("name", ["a.smi.gz", "a.csv.xz", "a.smi", "a.txt.zst"])
def test_compression_is_recognised_by_content(name: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(compress(b"smiles,zinc_id\nCCO,1\n"))
    assert smiles_of(tmp_path / name) == ["CCO"]


@pytest.mark.parametrize("suffix", [".smi.gz", ".csv"])
def test_memory_does_not_grow_with_the_file(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", b"smiles,n\n" + b"CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC,1\n" * 25_000)  # 1.1 MB
    tracemalloc.start()
    count = sum(1 for _ in read_molecules(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count >= 25_000
    assert peak < 300_000


@pytest.mark.parametrize("name", ["a.smi", "a.smi.gz", "a.txt", "a.csv", "a.csv.xz", "a.parquet"])
def test_reading_can_start_at_any_line(name: str, tmp_path: Path) -> None:
    """Line numbers, offsets and all later lines are the same from each starting line."""
    if name.endswith(".parquet"):
        table = pyarrow.table({"smiles": ["C" * n for n in range(1, 40)]})
        parquet.write_table(table, tmp_path / name, row_group_size=7)
    else:
        rows = ["\ufeffsmiles,name", "CCO,1", '"CCN","a\nb"', "", 'CC,"open', "CCC,3\r", "caf\u00e9,4", "CCF,5", "CCl"]
        write(tmp_path / name, "\n".join(rows if ".csv" in name else [row.replace(",", "\t") for row in rows]).encode())
    lines = list(read_molecules(tmp_path / name))
    layout = find_layout(tmp_path / name)
    for place, line in enumerate(lines):
        assert list(read_lines(tmp_path / name, layout, line.line_number, line.offset)) == lines[place:]
    assert len({line.offset for line in lines}) == len(lines) > 5


@pytest.mark.parametrize("name", ["latin.smi", "latin.csv"])
def test_a_line_that_is_not_utf8_does_not_affect_the_others(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, b"smiles,name\nCCO,1\nCN,caf\xe9\nCCN,2\n".replace(b",", b"," if name.endswith("csv") else b" "))
    assert [(line.line_number, line.smiles, line.problem) for line in read_molecules(path)] == [
        (2, "CCO", ""),
        (3, "", "not UTF-8 text"),
        (4, "CCN", ""),
    ]


@pytest.mark.parametrize("bad", ['CN,"2', 'CN,"2"x', '"CN,2'])
def test_an_unclosed_quote_does_not_affect_the_other_lines(bad: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f'smiles,name\nCCO,1\n{bad}\nCC,3\nCCC,"4 ""x"""\n'.encode())
    lines = list(read_molecules(path))
    assert [line.smiles for line in lines] == ["CCO", "", "CC", "CCC"]
    assert lines[1].problem.startswith("not CSV") and lines[1].text == bad and lines[1].line_number == 3


def test_lines_before_the_header_are_not_molecules(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"sep=;\n\nid;smiles\n1;CCO\n2;CC\n")
    assert [(line.line_number, line.smiles) for line in read_molecules(path)] == [(4, "CCO"), (5, "CC")]
    layout = find_layout(path)
    assert find_starts(path, layout, 1, None) == ([(4, 17), (5, 23)], 2)
    list_path = write(tmp_path / "a.smi", b"\nsmiles id\nCCO 1\n")
    assert find_starts(list_path, find_layout(list_path), 1, None) == ([(3, 11)], 1)


def test_a_header_that_is_not_csv_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'smiles,"note\nCCO,x\n')
    with pytest.raises(DataError, match=r"a\.csv, line 1: a quotation mark opens a cell of the header that is not closed"):
        list(read_molecules(path))


def test_a_header_need_not_be_utf8_where_only_smiles_are_read(tmp_path: Path) -> None:
    assert smiles_of(write(tmp_path / "a.csv", "smiles,größe\nCCO,1\n".encode("latin-1"))) == ["CCO"]
