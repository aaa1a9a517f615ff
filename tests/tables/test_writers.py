"""Rows with embeddings: appended block by block, written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.tables.writers import check_output, embedding_writer

VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_blocks_are_appended(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with embedding_writer(path) as append:
        for start in (0, 2, 4):
            append(pa.table({"id": [f"0{start}", "x"]}), VECTORS[start : start + 2])
            assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    if name == "out.parquet":
        result = pd.read_parquet(path)
        assert list(result) == ["id", "embedding"] and result["embedding"][0].dtype == np.float32
        vectors = np.stack(result["embedding"])
    else:
        result = pd.read_csv(path, dtype={"id": str})
        assert list(result) == ["id", "e0", "e1"]
        vectors = result[["e0", "e1"]].to_numpy()
    np.testing.assert_array_equal(vectors, VECTORS)
    assert result["id"].tolist() == ["00", "x", "02", "x", "04", "x"]


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
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
    with pytest.raises(DataError, match=r"out\.csv exists already.*--overwrite"):
        check_output(tmp_path / "out.csv", overwrite=False)
    check_output(tmp_path / "out.csv", overwrite=True)
    check_output(tmp_path / "new.parquet", overwrite=False)
    for name, found in (("out.npy", "'.npy'"), ("out", "'without a suffix'")):
        with pytest.raises(DataError, match=rf"written as \.parquet or \.csv, not {found}"):
            check_output(tmp_path / name, overwrite=True)
    with pytest.raises(DataError, match=r"There is no folder .*no to write out\.csv to"):
        check_output(tmp_path / "no" / "out.csv", overwrite=True)
