"""Embeddings as columns: what is stored, rounded and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from nemo_cmim.errors import DataError
from nemo_cmim.tables.latents import LatentTable
from nemo_cmim.tables.vectors import STORED, embedding_columns, embeddings_of, metadata, metadata_of

VECTORS = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32) * np.logspace(-3, 3, 9, dtype=np.float32)[:, None]
VECTORS[3], VECTORS[5] = np.nan, 0


@pytest.mark.parametrize("stored", STORED)
def test_vectors_are_read_as_they_were_stored(stored: str, tmp_path: Path) -> None:
    table = pa.table({"id": range(9), **embedding_columns(VECTORS, stored)})
    assert table.schema.field("embedding").type == pa.list_(pa.type_for_alias(stored), 6)
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=4)
    vectors = embeddings_of(pyarrow.parquet.read_table(tmp_path / "x.parquet"))
    assert vectors.dtype == np.float32 and np.isnan(vectors).all(axis=1).tolist() == [i == 3 for i in range(9)]
    largest = np.abs(VECTORS).max(axis=1, keepdims=True)
    error = {"float32": 0, "float16": 2**-11, "int8": 0.5 / 127 * 1.00001}[stored]
    good = np.arange(9) != 3
    assert (np.abs(vectors - VECTORS) <= error * largest)[good].all()
    with LatentTable(tmp_path / "x.parquet", 6) as latents:
        (block,) = latents.blocks(100)
        assert latents.names == ["id"] and block.problems == {3: "no latent"}
        np.testing.assert_array_equal(block.latents[good], vectors[good])


def test_an_empty_table_and_slices_have_vectors() -> None:
    table = pa.table(embedding_columns(VECTORS, "int8"))
    assert embeddings_of(table.slice(0, 0)).shape == (0, 6)
    np.testing.assert_array_equal(embeddings_of(table.slice(2, 5)), embeddings_of(table)[2:7])


def test_numbers_that_float16_cannot_hold_are_an_error() -> None:
    with pytest.raises(DataError, match="the number 70000, which float16 cannot hold"):
        embedding_columns(np.array([[1, 70000]], np.float32), "float16")


def test_metadata_stay_in_a_file(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    assert metadata_of(table.schema) is None
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata({"kind": "mean"})), tmp_path / "x.parquet")
    assert metadata_of(pyarrow.parquet.read_schema(tmp_path / "x.parquet")) == {"kind": "mean"}
