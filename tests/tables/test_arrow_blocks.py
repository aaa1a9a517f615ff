"""Blocks of rows: all columns, all rows, and an error that names the file."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pandas as pd
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.tables.arrow_blocks import read_blocks

ROWS = {"id": ["007", "8", "", "9"], "smiles": ["CCO", "", "OCC", "C"], "note": ['a "quoted", text', "two\nlines", "ünï", ""]}


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.csv.gz", "in.tsv.gz", "in.parquet"])
@pytest.mark.parametrize("max_rows", [1, 3, 100])
def test_blocks_hold_all_columns_and_rows(tmp_path: Path, name: str, max_rows: int) -> None:
    frame = pd.DataFrame(ROWS)
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",")
    blocks = list(read_blocks(tmp_path / name, "smiles", max_rows))
    assert [smiles for block in blocks for smiles in block.smiles] == ROWS["smiles"]
    assert [len(block.smiles) for block in blocks] == {1: [1] * 4, 3: [3, 1], 100: [4]}[max_rows]
    pd.testing.assert_frame_equal(pd.concat([block.rows.to_pandas() for block in blocks], ignore_index=True), frame)


@pytest.mark.parametrize("name", ["in.smi", "in.smi.gz", "in.txt.xz"])
def test_lines_of_text_files_are_smiles_and_id(tmp_path: Path, name: str) -> None:
    content = b"zinc_id smiles mwt\n007 CCO 46.07\n8 C 16.04\n9 CC 30.07\n"
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(compress(content))
    first, second = read_blocks(tmp_path / name, "smiles", 2)
    assert first.rows.to_pydict() == {"smiles": ["CCO", "C"], "id": ["007 46.07", "8 16.04"]}
    assert first.smiles == ["CCO", "C"] and second.smiles == ["CC"]


def test_another_column_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("smiles\tproduct\nCCO\tCC=O\n")
    (block,) = read_blocks(tmp_path / "in.txt", "product", 9)
    assert block.rows.to_pydict() == {"smiles": ["CC=O"], "id": ["CCO"]}


GZIPPED = gzip.compress(("smiles\n" + "".join(f"{'C' * (i % 60 + 1)}\n" for i in range(50_000))).encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"id,structure\n1,CCO\n", r"in\.csv has no column 'smiles'; its columns are 'id', 'structure'"),
        ("in.csv", b"smiles,a,a\nC,1,2\n", r"in\.csv has 2 columns 'a'"),
        ("in.csv", b"smiles,a,smiles\nC,1,CC\n", r"in\.csv has 2 columns 'smiles'"),
        ("in.csv", b"", r"in\.csv is empty"),
        ("in.csv", b"smiles,id\nCC,1\nCCC\n", r"in\.csv cannot be read.*damaged"),
        ("in.csv", b"smiles\n\xff\n", r"in\.csv cannot be read.*damaged"),
        ("in.csv.gz", GZIPPED[: len(GZIPPED) // 2], r"in\.csv\.gz cannot be read.*truncated"),
        ("in.csv.gz", b"smiles\nC\n", r"in\.csv\.gz cannot be read.*not in the format of its name"),
        ("in.parquet", b"PAR1 no", r"in\.parquet cannot be read.*damaged"),
        ("in.parquet.gz", gzip.compress(b"PAR1 no"), r"in\.parquet\.gz cannot be read"),
        ("in.smi", b"", r"in\.smi holds no molecules"),
        ("in.xlsx", b"", r"in\.xlsx has an unsupported format.*\.csv, \.tsv .* or \.parquet"),
        ("in.csv.xz", lzma.compress(b"smiles\nC\n"), r"in\.csv\.xz has an unsupported format"),
        ("in.CSV", b"smiles\nC\n", r"in\.CSV has an unsupported format"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_blocks(tmp_path / name, "smiles", 100))


def test_a_file_without_rows_gives_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles\n")
    assert [block for block in read_blocks(tmp_path / "in.csv", "smiles", 100) if block.smiles] == []
