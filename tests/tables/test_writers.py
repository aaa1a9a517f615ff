"""Rows with embeddings: appended block by block, written completely or not at all."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.tables.writers import Append, check_output, embedding_writer

VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)


ENDINGS = ["out.parquet", "out.csv", "out.csv.gz", "out.npy", "out.npz"]


def append_all(append: Append) -> None:
    for start in (0, 2, 4):
        append(pa.table({"id": [f"0{start}", None], "n": [start, 1]}), VECTORS[start : start + 2])


@pytest.mark.parametrize("name", ENDINGS)
def test_blocks_are_appended(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with embedding_writer(path) as append:
        append_all(append)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    if name.endswith(("npy", "npz")):
        result = np.load(path)
        vectors = result if name.endswith("npy") else result["embedding"]
        if name.endswith("npz"):
            assert result["id"].tolist() == ["00", "", "02", "", "04", ""] and result["n"].tolist() == [0, 1, 2, 1, 4, 1]
    elif name == "out.parquet":
        table = pd.read_parquet(path)
        assert list(table) == ["id", "n", "embedding"] and table["embedding"][0].dtype == np.float32
        vectors = np.stack(table["embedding"])
    else:
        table = pd.read_csv(path, dtype={"id": str})
        assert list(table) == ["id", "n", "e0", "e1"]
        vectors = table[["e0", "e1"]].to_numpy()
    np.testing.assert_array_equal(vectors, VECTORS)
    if not name.endswith(("npy", "npz")):
        assert table["id"].fillna("").tolist() == ["00", "", "02", "", "04", ""] and table["n"].tolist() == [0, 1, 2, 1, 4, 1]


def test_standard_output_is_csv(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with embedding_writer(Path("-")) as append:
        append_all(append)
    table = pd.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    np.testing.assert_array_equal(table[["e0", "e1"]], VECTORS)
    print("still open")
    assert capfdbinary.readouterr().out == b"still open\n"


def test_columns_of_lists(tmp_path: Path) -> None:
    """Only Parquet can hold them; other formats refuse them by name."""
    rows = pa.table({"id": ["1", "2"], "fragments": [["C", "O"], []], "class": pa.array(["a", "b"]).dictionary_encode()})
    with embedding_writer(tmp_path / "out.parquet") as append:
        append(rows, VECTORS[:2])
    assert pd.read_parquet(tmp_path / "out.parquet")["fragments"][0].tolist() == ["C", "O"]
    for name in ("out.csv", "out.csv.gz", "out.npz"):
        message = r"column 'fragments' holds list<.*Name an output \.parquet"
        with pytest.raises(DataError, match=message), embedding_writer(tmp_path / name) as append:
            append(rows, VECTORS[:2])
    with embedding_writer(tmp_path / "out.csv") as append:
        append(rows.drop_columns("fragments"), VECTORS[:2])
    assert pd.read_csv(tmp_path / "out.csv")["class"].tolist() == ["a", "b"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = r"out\.npy cannot be written: No space left on device"
    with pytest.raises(DataError, match=message), embedding_writer(tmp_path / "out.npy") as append:
        append_all(append)
        monkeypatch.setattr("nemo_cmim.files.fsync", full)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ENDINGS)
def test_an_error_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(RuntimeError, match="stopped"), embedding_writer(tmp_path / name) as append:
        append(pa.table({"id": ["1", "2"]}), VECTORS[:2])
        raise RuntimeError("stopped")
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("name", "column"), [("out.parquet", "embedding"), ("out.csv", "e1")])
def test_a_column_with_the_name_of_an_embedding(tmp_path: Path, name: str, column: str) -> None:
    with pytest.raises(DataError, match=f"already has a column '{column}'"), embedding_writer(tmp_path / name) as append:
        append(pa.table({column: ["1", "2"]}), VECTORS[:2])
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out.csv").touch()
    with pytest.raises(DataError, match=r"out\.csv already exists.*overwrite=True"):
        check_output(tmp_path / "out.csv", overwrite=False, others=[])
    check_output(tmp_path / "out.csv", overwrite=True, others=[])
    check_output(tmp_path / "new.parquet", overwrite=False, others=[])
    for name, found in (("out.xlsx", "'.xlsx'"), ("out", "'without a suffix'")):
        with pytest.raises(DataError, match=rf"written as \.parquet, \.csv, .*, not {found}"):
            check_output(tmp_path / name, overwrite=True, others=[])
    with pytest.raises(DataError, match=r"is a folder, not a file"):
        check_output(tmp_path, overwrite=True, others=[])
    with pytest.raises(DataError, match=r"there is no folder .*no\. Create"):
        check_output(tmp_path / "no" / "out.csv", overwrite=True, others=[])
