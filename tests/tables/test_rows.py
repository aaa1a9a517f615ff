"""All columns of files of all kinds: each row is read unchanged or reported, and what cannot be read is an error that names the line."""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.tables import rows
from nemo_cmim.tables.layout import ReadOptions
from nemo_cmim.tables.rows import MoleculeTable

ROWS = {"id": ["007", "8", "", "9"], "smiles": ["CCO", "", "OCC", "C"], "note": ['a "quoted", text', "two\nlines", "ünï", ""]}


def read(path: Path | str, **options: Any) -> dict[str, list[Any]]:
    """All columns."""
    with MoleculeTable(path, ReadOptions(**options)) as table:
        blocks = [block.rows for block in table.blocks(3)]
        names = table.names
    return pa.concat_tables(blocks).to_pydict() if blocks else {name: [] for name in names}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.csv.gz", "in.tsv.gz", "in.parquet"])
@pytest.mark.parametrize("max_rows", [1, 3, 100])
def test_blocks_hold_all_columns_and_rows(tmp_path: Path, name: str, max_rows: int) -> None:
    frame = pd.DataFrame(ROWS)
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",")
    with MoleculeTable(tmp_path / name) as table:
        blocks = list(table.blocks(max_rows))
    assert [smiles for block in blocks for smiles in block.smiles] == ["CCO", None, "OCC", "C"]
    assert blocks[0].numbers[0] == (1 if name.endswith("parquet") else 2)
    assert sum(len(block.problems) for block in blocks) == 1
    assert [len(block.smiles) for block in blocks] == {1: [1] * 4, 3: [3, 1], 100: [4]}[max_rows]
    pd.testing.assert_frame_equal(pd.concat([block.rows.to_pandas() for block in blocks], ignore_index=True), frame)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        # Fields of .smi are carried, not made up from the rest of the line.
        ("header.smi", "id smiles\nCHEMBL1 C\n", {"id": ["CHEMBL1"], "smiles": ["C"]}),
        ("last.smi", "id smiles\nmy  own\tid CC\n", {"id": ["my  own\tid"], "smiles": ["CC"]}),
        ("first.smi", "smiles name\nC  C id \t 1\n", {"smiles": ["C"], "name": ["C id \t 1"]}),
        ("middle.smi", "zinc_id smiles mwt\n007 CCO 46.07\n", {"zinc_id": ["007"], "smiles": ["CCO"], "mwt": ["46.07"]}),
        ("none.smi", "C C1 a  b\nCC\n", {"smiles": ["C", "CC"], "id": ["C1 a  b", ""]}),
        ("tabs.smi", "name\tSMILES\nethyl alcohol\tCCO\n", {"name": ["ethyl alcohol"], "SMILES": ["CCO"]}),
        ("id_tab.smi", "CCO\tethyl  alcohol\n", {"smiles": ["CCO"], "id": ["ethyl  alcohol"]}),
        ("extension.smi", "C[C@H](O)F |&1:1| name 1\n", {"smiles": ["C[C@H](O)F |&1:1|"], "id": ["name 1"]}),
        # Delimiters and names of columns are found.
        ("semicolon.csv", "SMILES;name\nCCO;a,b\n", {"SMILES": ["CCO"], "name": ["a,b"]}),
        ("pipe.csv", "id|Canonical SMILES\n1|CCO\n", {"id": ["1"], "Canonical SMILES": ["CCO"]}),
        ("tab.csv", "isomeric-smiles\tx\nCCO\t1\n", {"isomeric-smiles": ["CCO"], "x": ["1"]}),
        ("comma.tsv", "x,Smiles\n1,CCO\n", {"x": ["1"], "Smiles": ["CCO"]}),
        ("comma.smi", "smiles,id\nCCO,1\n", {"smiles": ["CCO"], "id": ["1"]}),
        ("comma.txt", '"smiles","id"\n"CCO","1,5"\n', {"smiles": ["CCO"], "id": ["1,5"]}),
        ("no_suffix", "smiles\tid\nCCO\t1\n", {"smiles": ["CCO"], "id": ["1"]}),
        # Line ends, byte-order mark, quoted cells over several lines.
        ("mac.csv", "smiles,x\rCCO,1\rCC,2", {"smiles": ["CCO", "CC"], "x": ["1", "2"]}),
        ("mac_quoted.csv", 'smiles,x\rCCO,"1\n2\n3\n4"\rCC,2\r', {"smiles": ["CCO", "CC"], "x": ["1\n2\n3\n4", "2"]}),
        ("returns.csv", 'smiles,x\n"CCO","\r\r\r\r"\n', {"smiles": ["CCO"], "x": ["\r\r\r\r"]}),
        ("windows.csv", '\ufeffsmiles,x\r\nCCO,"a\r\nb"\r\n', {"smiles": ["CCO"], "x": ["a\r\nb"]}),
        ("quotes.csv", 'smiles,x\nCCO,5" tube\nCC,"5"" tube"\n', {"smiles": ["CCO", "CC"], "x": ['5" tube', '5" tube']}),
        ("one.csv", "smiles\nCCO\n\nCC\n\n\n", {"smiles": ["CCO", "", "CC"]}),
        ("empty_lines.csv", "smiles,x\nCCO,1\n\nCC,2\n\n", {"smiles": ["CCO", "", "CC"], "x": ["1", "", "2"]}),
        ("header_only.csv", "smiles,x\n", {"smiles": [], "x": []}),
        # What Excel writes: a line for itself, empty lines at the start, columns without a name.
        ("excel.csv", "sep=;\r\nsmiles;name\r\nCCO;a,b\r\n", {"smiles": ["CCO"], "name": ["a,b"]}),
        ("excel_quoted.txt", '\ufeff"sep=|"\nname|smiles\nx|C\n', {"name": ["x"], "smiles": ["C"]}),
        ("blank.csv", "\n \nsmiles,x\nCCO,1\n", {"smiles": ["CCO"], "x": ["1"]}),
        ("blank.smi", "\nCCO a\nC b\n", {"smiles": ["CCO", "C"], "id": ["a", "b"]}),
        ("unnamed.csv", "smiles,,y,\nCCO,,1,\n", {"smiles": ["CCO"], "column2": [""], "y": ["1"], "column4": [""]}),
        ("index.csv", ",smiles\n0,CCO\n", {"": ["0"], "smiles": ["CCO"]}),
        ("made.csv", "smiles,column3,,\nC,1,2,3\n", {"smiles": ["C"], "column3": ["1"], "column3_": ["2"], "column4": ["3"]}),
        ("multi.csv", 'smiles,n\nCCO,"' + "x\n" * 70_000 + '"\nCCN,c\n', {"smiles": ["CCO", "CCN"], "n": ["x\n" * 70_000, "c"]}),
        ("name_first.smi", "name SMILES\nfoo C[C@H](O)F |&1:1|\n", {"name": ["foo"], "SMILES": ["C[C@H](O)F |&1:1|"]}),
        # Characters that only look like white space or line ends.
        ("fs.smi", "CCO\x1c1\x85 id\n", {"smiles": ["CCO\x1c1\x85"], "id": ["id"]}),
        ("nbsp.smi", "smiles id\n\xa0C 1\n", {"smiles": ["\xa0C"], "id": ["1"]}),
        ("odd.csv", "smiles,a\x0bb\u2028c\x85\nCCO,\x1c1\n", {"smiles": ["CCO"], "a\x0bb\u2028c\x85": ["\x1c1"]}),
        ("header.csv", 'smiles,"two\nlines"\nCCO,1\n', {"smiles": ["CCO"], "two\nlines": ["1"]}),
        ("long.csv", f"smiles,x\nCCO,{'y' * 200_000}\n", {"smiles": ["CCO"], "x": ["y" * 200_000]}),
        ("quoted.txt", '"smiles"\t"id"\n"CCO"\t"a\tb"\n', {"smiles": ["CCO"], "id": ["a\tb"]}),
        ("no_name.smi", "smiles\tid\nCCO\nC\tx y\n", {"smiles": ["CCO", "C"], "id": ["", "x y"]}),
        ("a.cxsmiles", "C[C@H](O)F |&1:1|\tname 1\n", {"smiles": ["C[C@H](O)F |&1:1|"], "id": ["name 1"]}),
    ],
)
def test_fields_are_carried_unchanged(tmp_path: Path, name: str, content: str, expected: dict[str, list[str]]) -> None:
    assert read(write(tmp_path / name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("a.csv", "structure,y\nCCO,1\n", {"smiles": "structure"}, {"structure": ["CCO"], "y": ["1"]}),
        ("a.csv", "structure,y\nCCO,1\n", {"smiles": "1"}, {"structure": ["CCO"], "y": ["1"]}),
        ("a.csv", "SMILES,smiles\nC,CC\n", {"smiles": "smiles"}, {"SMILES": ["C"], "smiles": ["CC"]}),
        ("a.csv", "1,CCO\n2,C\n", {"smiles": "2", "header": False}, {"column1": ["1", "2"], "smiles": ["CCO", "C"]}),
        ("a.csv", "1;CCO;x,y\n", {"smiles": "2", "header": False}, {"column1": ["1"], "smiles": ["CCO"], "column3": ["x,y"]}),
        ("a.csv", "smiles\nCCO\n", {"header": False}, {"smiles": ["smiles", "CCO"]}),
        ("a.smi", "ID7 CCO\n", {"smiles": "2"}, {"id": ["ID7"], "smiles": ["CCO"]}),
        ("a.txt", "smiles~x\nCCO~1\n", {"delimiter": "~"}, {"smiles": ["CCO"], "x": ["1"]}),
        ("a.csv", "smiles x\nCCO 1\n", {"delimiter": "space"}, {"smiles": ["CCO"], "x": ["1"]}),
    ],
)
def test_what_the_user_says_is_done(tmp_path: Path, name: str, content: str, options: Any, expected: Any) -> None:
    assert read(write(tmp_path / name, content), **options) == expected


UNCLOSED = "".join(f"C{'C' * (i % 9)},{i}\n" if i != 10 else 'CCO,"5 inch tube\n' for i in range(18_000))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            'smiles,note\nCCO,"5 inch tube\nCCN,x\nCCC,y\n',
            r"a\.csv, line 2: a quotation mark opens a cell that is not closed",
        ),
        ("a.csv", "smiles,n\n" + UNCLOSED, r"a\.csv, line 12: a quotation mark opens"),
        ("a.csv", 'smiles,note\nCCO,"5 inch\nCCN,"6 inch\n', r"a\.csv, line 2: a quotation mark opens"),
        ("a.tsv", 'smiles\tnote\nCCO\t"5\nCCN\tx\n', r"a\.tsv, line 2: a quotation mark opens"),
        ("a.csv", 'smiles,note\nCCO,"5" inch\n', r"a\.csv, line 2: text follows the quotation mark that closes a cell"),
        ("a.csv", "smiles,note\nCCO,a\rb\n", r"a\.csv, line 2: a carriage return is in a cell without quotation marks"),
        ("a.csv", 'smiles,"note\nCCO,x\n', r"a\.csv, line 1: a quotation mark opens a cell of the header that is not closed"),
        ("a.csv", 'smiles,"note\nCCO,x\nC,"y"\n', r"a\.csv, line 1: a quotation mark opens"),
        ("a.csv", "smiles,größe\nCCO,1\n".encode("latin-1"), r"a\.csv, line 1: it is not UTF-8 text\. Save the file as UTF-8"),
        ("a.csv", b'smiles,x\nC,"1\n2\n\xe9"\n', r"a\.csv, line 4: it is not UTF-8 text"),
        ("a.sdf", b"name\n\n\n\xe9", r"a\.sdf, line 4: it is not UTF-8 text"),
        ("a.csv", "smiles\nC\n".encode("utf-16-le"), r"a\.csv is UTF-16 or UTF-32 text\. Save it as UTF-8"),
        ("a.csv", "sep=,\n", r"a\.csv has no column 'smiles'; its first line is 'sep=', ''"),
        ("a.csv", b"\xef\xbb\xbf\n", r"a\.csv holds no molecules"),
        ("a.csv", '"note,smiles\nCCO,x\n', r"a\.csv, line 1: a quotation mark opens a cell of the header that is not closed"),
        (
            "a.csv",
            "cid,isosmiles,canonicalsmiles\n1,C,C\n",
            r"has 2 columns that may hold the SMILES: 'isosmiles', 'canonicalsmiles'",
        ),
        ("a.smi", "CCO a\rCCN b\nCCC c\n", r"a\.smi, line 1: some lines end in a line feed, others in a carriage return"),
        ("a.smi", "CCO a\r\nCCN b\rCCC c\r\n", r"a\.smi, line 2: some lines end in a line feed"),
        ("a.csv.gz", gzip.compress(gzip.compress(b"smiles\nC\n")), r"a\.csv\.gz is compressed twice"),
        ("a.csv", b"\x5d\x00\x00\x80\x00", r"a\.csv is compressed, but not by gzip, bzip2, xz or Zstandard"),
        ("a.csv", "smiles\nC\n".encode("utf-32"), r"a\.csv is UTF-16 or UTF-32 text"),
        ("a.csv", "\x1c", r"a\.csv has no column 'smiles'; its first line is '\\x1c'"),
        ("CID-SMILES", "1\tCC(=O)O\n2\tC\n", r"begins with the number 1: '1', 'CC\(=O\)O'\. .* --smiles 2"),
        ("a.csv", "smiles,note\nCCO,1,2\n", r"a\.csv, line 2: it has 3 columns, but the file has 2"),
        ("a.csv", "smiles,note\nCCO,1\nCC\n", r"a\.csv, line 3: it has 1 columns, but the file has 2"),
        ("a.txt", "smiles\tnote\tx\nCCO\t\n", r"a\.txt, line 2: it has 2 columns, but the file has 3"),
        ("a.csv", b"smiles,x\nC,1\nCCO,caf\xe9\n", r"a\.csv, line 3: it is not UTF-8 text\. Save the file as UTF-8"),
        ("a.csv", "smiles\nC\n".encode("utf-16"), r"a\.csv is UTF-16 or UTF-32 text\. Save it as UTF-8"),
        ("a.xlsx", b"PK\x03\x04...", r"a\.xlsx is a spreadsheet .* CSV"),
        ("a.csv", b"PK\x03\x04...", r"a\.csv is a spreadsheet"),
        ("a.xls", b"\xd0\xcf\x11\xe0...", r"a\.xls is a spreadsheet"),
        ("a.csv", "<!DOCTYPE html>\n", r"a\.csv is a web page"),
        ("a.csv", "", r"a\.csv holds no molecules"),
        ("a.csv", "id,structure\n1,CCO\n", r"a\.csv has no column 'smiles'; .*'id', 'structure'\. .*--smiles"),
        (
            "a.csv",
            "smiles,SMILES\nC,C\n",
            r"a\.csv has 2 columns that may hold the SMILES: 'smiles', 'SMILES'\. Name one with --smiles",
        ),
        ("a.csv", "smiles,a,a\nC,1,2\n", r"a\.csv has 2 columns 'a'"),
        ("a.parquet", b"smiles\nC\n", r"a\.parquet cannot be read: it is not a Parquet file"),
        ("a.parquet", b"PAR1 no", r"a\.parquet cannot be read.*damaged"),
        (
            "a.smi",
            "zinc_id smiles mwt\n007 CCO\n",
            r"a\.smi, line 2: it has 2 fields, but the file has 3 columns\. Separate .* by tabs",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"smiles": "none"}, DataError, "has no column 'none'"),
        ({"smiles": "3"}, DataError, "has no column '3'"),
        ({"smiles": "name", "header": False}, DataError, "is read without a header, so the SMILES column has a number"),
        ({"header": False}, DataError, "2 columns: 'smiles', 'x'"),
        ({"delimiter": "::"}, ConfigError, "delimiter must be one character, tab or space, found '::'"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(write(tmp_path / "a.csv", "smiles,x\nC,1\n"), **options)


def test_truncated_files(tmp_path: Path) -> None:
    content = ("smiles\n" + "".join(f"{'C' * (i % 60 + 1)}\n" for i in range(50_000))).encode()
    for name, compress in (("a.csv.gz", gzip.compress), ("a.csv.xz", lzma.compress)):
        whole = compress(content)
        with pytest.raises(DataError, match=r"a\.csv\.\w+ cannot be read after line \d+: .*truncated"):
            read(write(tmp_path / name, whole[: len(whole) // 2]))


SDF = """{name}
     RDKit          2D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.0000    0.0000    0.0000 {atom}   0  0
  1  2  1  0
M  END
{data}$$$$
"""


def test_sdf(tmp_path: Path) -> None:
    first = SDF.format(name="one", atom="O", data="> 25 <MELTING.POINT>\n-97.6\n\n> <note>\ntwo\nlines\n\n")
    second = SDF.format(name="two", atom="X9", data="> <ID>\n7\n\n")
    third = SDF.format(name="", atom="N", data="").removesuffix("$$$$\n")
    path = write(tmp_path / "a.sdf.gz", gzip.compress((first + second + third).replace("\n", "\r\n").encode()))
    with MoleculeTable(path) as table:
        (block,) = table.blocks(10)
        assert table.fraction_read() == 1
    assert block.rows.to_pydict() == {
        "smiles": ["CO", "", "CN"],
        "name": ["one", "two", ""],
        "MELTING.POINT": ["-97.6", "", ""],
        "note": ["two\nlines", "", ""],
        "ID": ["", "7", ""],
    }
    assert list(block.problems) == [1] and list(block.numbers) == [1, 17, 29]
    with pytest.raises(ConfigError, match="RDKit writes the SMILES of its structures"):
        read(path, smiles="ID")


def test_a_mol_file_and_a_structure_of_any_suffix(tmp_path: Path) -> None:
    block = SDF.format(name="methanol", atom="O", data="").removesuffix("$$$$\n")
    for name in ("a.mol", "a.txt"):
        assert read(write(tmp_path / name, block)) == {"smiles": ["CO"], "name": ["methanol"]}


def test_the_data_of_an_sdf_file_may_be_called_smiles(tmp_path: Path) -> None:
    path = write(tmp_path / "a.sdf", SDF.format(name="x", atom="O", data="> <smiles>\nOC\n\n"))
    assert read(path) == {"smiles_": ["CO"], "name": ["x"], "smiles": ["OC"]}


def test_types_of_parquet_survive(tmp_path: Path) -> None:
    table = pa.table({"SMILES": ["C", None], "list": [[1, 2], None], "n": pa.array([1, None], pa.int8())})
    parquet.write_table(table, tmp_path / "a.parquet")
    with MoleculeTable(tmp_path / "a.parquet") as opened:
        (block,) = opened.blocks(10)
    assert block.rows.equals(table) and block.smiles == ["C", None] and list(block.problems) == [1]
    write(tmp_path / "a.dat", gzip.compress((tmp_path / "a.parquet").read_bytes()))
    assert read(tmp_path / "a.dat")["SMILES"] == ["C", None]


def test_standard_input_and_fifos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(b"id,smiles\n1,CCO\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read("-") == {"id": ["1"], "smiles": ["CCO"]}
    monkeypatch.chdir(tmp_path)
    for name, smiles in (("standard input", "N"), ("a.parquet", "CCO")):
        parquet.write_table(pa.table({"smiles": [smiles]}), tmp_path / name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "a.parquet").read_bytes())))
    assert read("-") == {"smiles": ["CCO"]}  # not the file with the name that messages use
    parquet.write_table(pa.table({"smiles": ["CCO"]}), tmp_path / "a.parquet")
    for one in (content, (tmp_path / "a.parquet").read_bytes(), SDF.format(name="", atom="O", data="").encode()):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        thread = threading.Thread(target=fifo.write_bytes, args=(one,))
        thread.start()
        assert read(fifo)["smiles"] in (["CCO"], ["CO"])
        thread.join()
        fifo.unlink()


def test_urls(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the [data] extra")
    import fsspec

    with fsspec.open("memory://a.csv.gz", "wb") as file:
        file.write(gzip.compress(b"id,smiles\n1,CCO\n"))
    assert read("memory://a.csv.gz") == {"id": ["1"], "smiles": ["CCO"]}
    with pytest.raises(DataError, match=r"memory://none\.csv cannot be read"):
        read("memory://none.csv")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv is missing; check the path"):
        read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder; name the files in the folder"):
        read(tmp_path)


def test_a_file_with_very_many_columns(tmp_path: Path) -> None:
    """Its header is found although it is long, and duplicate names are found although there are many names."""
    names = ["smiles", *(f"x{i}" for i in range(60_000))]
    rows = ["CCO," + ",".join("1" * 60_000), "C," + ",".join("0" * 60_000)]
    table = read(write(tmp_path / "a.csv", "\n".join([",".join(names), *rows, ""])))
    assert list(table) == names and table["x59999"] == ["1", "0"]
    start = time.process_time()
    with pytest.raises(DataError, match=r"has 2 columns 'x7'; its columns are 'smiles', .* and 59,982 more"):
        read(write(tmp_path / "a.csv", "\n".join([",".join([*names, "x7"]), rows[0] + ",1", ""])))
    assert time.process_time() - start < 20  # comparing all names with each other took more than a minute


def test_progress_is_the_fraction_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "smiles\n" + "CCCCCCCCCCCCCCCCCCCCCCCCC\n" * 10_000)
    with MoleculeTable(path) as table:
        seen = [table.fraction_read() for _ in table.blocks(1000)]
    assert (
        all(a is not None and b is not None and a <= b for a, b in itertools.pairwise(seen)) and seen[-1] == 1.0 and seen[0] < 0.5
    )


def test_options_for_text_are_refused_for_other_files(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"smiles": ["C"]}), tmp_path / "a.parquet")
    write(tmp_path / "a.sdf", "name\n\n\n")
    for name, kind in (("a.parquet", "a Parquet"), ("a.sdf", "an SDF")):
        for options in ({"delimiter": ","}, {"header": False}):
            with pytest.raises(ConfigError, match=rf"is for text files, but .*{name} is {kind} file\. Leave it out"):
                read(tmp_path / name, **options)


BLOCK = "{}\n  made\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0000    0.0000    0.0000 {:2}  0  0\nM  END\n"


def records(*elements: str, data: str = "> <ID>\n{}\n\n") -> str:
    return "".join(BLOCK.format(element, element) + data.format(element) + "$$$$\n" for element in elements)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n"])
@pytest.mark.parametrize("name", ["a.sdf", "no_suffix"])
def test_sdf_with_any_line_end(tmp_path: Path, end: str, last: str, name: str) -> None:
    content = records("C", "N", "O").replace("\n", end) + last
    assert read(write(tmp_path / name, content)) == {"smiles": ["C", "N", "O"], "name": ["C", "N", "O"], "ID": ["C", "N", "O"]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("> <N>\nfirst\n\nsecond\n\n", {"N": "first\n\nsecond"}),
        ("> DT5\n1\n\n", {"DT5": "1"}),
        ("> <A>\n1\n\n> <A>\n2\n\n", {"A": "1", "A_2": "2"}),
        ("> <A>\n1\n \n> <B>\n2\n\n", {"A": "1", "B": "2"}),
        ("> <A>\n> 5 <uM>\n\n", {"A": "> 5 <uM>"}),
        ("> 25 <MELTING.POINT>\n\n", {"MELTING.POINT": ""}),
    ],
)
def test_no_data_of_a_record_are_lost(tmp_path: Path, data: str, expected: dict[str, str]) -> None:
    found = read(write(tmp_path / "a.sdf", records("C", data=data)))
    assert found == {"smiles": ["C"], "name": ["C"], **{name: [value] for name, value in expected.items()}}


def test_a_missing_end_of_a_record_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.sdf", records("C", "N").replace("$$$$\n", "", 1) + records("O"))
    with MoleculeTable(path) as table:
        (block,) = table.blocks(9)
    assert block.smiles == [None, "O"] and "a line $$$$ is missing between them" in block.problems[0]


def test_a_first_line_that_is_a_molecule_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,CCO\n2,CCN\n")
    with pytest.raises(DataError, match=r"column 2 of .*a\.csv is called 'CCO', which is a molecule\. If .* pass --no-header"):
        read(path, smiles="2")
    assert read(path, smiles="2", header=False)["smiles"] == ["CCO", "CCN"]
    assert read(path, smiles="2", header=True)["CCO"] == read(path, smiles="CCO")["CCO"] == ["CCN"]


def test_cells_are_those_of_pyarrow_without_pandas() -> None:
    for cells in ([], [None], ["", None, "a", "ünï\0", *"bcdefg", None], ("x",) * 9):
        found = rows._text_array(cells)
        found.validate(full=True)
        assert found.equals(pa.array(cells, pa.string())) and found.null_count == list(cells).count(None)
    code = "import sys; from nemo_cmim.tables.rows import _text_array; _text_array(['a']); print('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
