"""CSV files in which every row must be well formed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.tables.csv_rows import read_csv_rows


def rows(path: Path, content: str | bytes) -> list[tuple[int, dict[str | None, str | None]]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_csv_rows(path, ("smiles", "y")))


def test_rows_have_the_number_of_their_last_line(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", '\ufeffsmiles,note,y\r\nCCO,"a, b\nc",1\r\n\r\nCN,,2\r\n')
    assert found == [(3, {"smiles": "CCO", "note": "a, b\nc", "y": "1"}), (5, {"smiles": "CN", "note": "", "y": "2"})]


def test_short_and_long_rows(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "smiles,y\nCCO\nCN,1,2\n") == [
        (2, {"smiles": "CCO", "y": None}),
        (3, {"smiles": "CN", "y": "1", None: ["2"]}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.csv is empty"),
        ("SMILES,y\nCCO,1\n", r"a\.csv has no column 'smiles'; its columns are 'SMILES', 'y'"),
        ("smiles;y\nCCO;1\n", r"has no column 'smiles'; its columns are 'smiles;y'"),
        ("smiles,y,y\nCCO,1,2\n", "has 2 columns 'y'"),
        ('smiles,y\n"CCO,1\n', r"a\.csv is not CSV text"),
        (b"\x1f\x8b\x08\x00\xff\xfe", "is not CSV text in UTF-8 .*compressed"),
    ],
)
def test_files_that_are_not_csv(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(tmp_path / "a.csv", content)


def test_a_column_that_is_not_required_may_occur_twice(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv", "smiles,y,x,x\nCCO,1,2,3\n")[0][1]["y"] == "1"


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv cannot be read: No such file"):
        list(read_csv_rows(tmp_path / "none.csv", ()))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_csv_rows(tmp_path, ()))
