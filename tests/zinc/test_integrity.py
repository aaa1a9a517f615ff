from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path

import pytest

from nemo_cmim.zinc.integrity import BrokenFileError, check_file

TABS = b"smiles\tzinc_id\tfeatures\nCCO\t1\tan alcohol\nCCN\t2\t\n"


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("BAAA.smi", b"smiles zinc_id\n", 1),
        ("BAAA.smi", b"smiles zinc_id\r\nCCO 1\r\n", 2),
        ("BAAA.txt", TABS, 3),
        ("BAAA.smi.gz", gzip.compress(b"CCO 1\nCCN 2\n"), 2),
        ("BAAA.txt.xz", lzma.compress(TABS), 3),
        ("BAAA.sdf", b"one\ntwo words", 2),  # no columns are checked
    ],
)
def test_complete_files(name: str, content: bytes, lines: int, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(content)
    assert check_file(tmp_path / "x.part", name) == (len(content), hashlib.sha256(content).hexdigest(), lines)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("BAAA.smi", b"", "empty"),
        ("BAAA.smi", b"  <HTML>\n", "web page"),
        ("BAAA.smi", b"CCO 1\nCCN 2", "no line end"),
        ("BAAA.smi", b"CCO 1\nCCN\n", "1 columns, but the line before has 2"),
        ("BAAA.txt", TABS[:-2] + b"\n", "2 columns, but the line before has 3"),
        ("BAAA.smi.gz", gzip.compress(b"CCO 1\nCCN"), "no line end"),
        ("BAAA.smi.gz", gzip.compress(b"CCO 1\n")[:-4], "damaged"),
        ("BAAA.smi.gz", b"CCO 1\n", "not compressed"),
        ("BAAA.smi.gz", b"<!doctype html>\n", "web page"),
        ("BAAA.smi.xz", lzma.compress(b"CCO 1\n")[:-4], "damaged"),
    ],
)
def test_files_that_are_not_complete(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(content)
    with pytest.raises(BrokenFileError, match=reason):
        check_file(tmp_path / "x.part", name)


def test_a_truncated_tranche(tranche_files: Path) -> None:
    path = tranche_files / "truncated.smi"
    with pytest.raises(BrokenFileError, match="no line end"):
        check_file(path, path.name)
