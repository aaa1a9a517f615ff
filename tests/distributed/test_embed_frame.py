"""Dask data frames that are embedded: a part for each partition, and types of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nemo_cmim.distributed import embed, embed_files
from nemo_cmim.errors import ConfigError, DataError
from tests.distributed.test_embed_library import SETTINGS, rows_of


def test_a_data_frame_gives_a_part_for_each_partition(source: Path, model_file: Path, tmp_path: Path) -> None:
    frames = pytest.importorskip("dask.dataframe")
    settings: dict[str, Any] = {"model": model_file, "on_invalid": "nan", "progress": False}
    frame = pd.read_csv(source, keep_default_na=False).set_index("id")
    ddf = frames.from_pandas(frame, npartitions=3, sort=False)
    manifest = embed(ddf, tmp_path / "out", **settings)
    assert [part["rows"] for part in manifest.parts] == [20, 20, 20] and manifest.counts["invalid"] == 3
    table = rows_of(tmp_path / "out")
    assert table.column_names == ["id", "smiles", "embedding", "invalid_reason"]
    embed_files(source, tmp_path / "files", model=model_file, **{**SETTINGS, "part_rows": 20})
    assert table.equals(rows_of(tmp_path / "files"))
    with pytest.raises(DataError, match="different inputs"):
        embed(frames.from_pandas(frame[:9], npartitions=3), tmp_path / "out", **settings)
    with pytest.raises(ConfigError, match="ddf must be a Dask data frame, found DataFrame"):
        embed(frame, tmp_path / "other", **settings)


def test_categories_of_a_data_frame_become_text(model_file: Path, tmp_path: Path) -> None:
    frames = pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame({"smiles": ["CCO", "CCN", "CCO"], "series": ["a", None, "b"], "year": [1, 2, 1]})
    ddf = frames.from_pandas(frame.astype({"smiles": "category", "series": "category", "year": "category"}), npartitions=2)
    embed(ddf, tmp_path / "out", model=model_file, progress=False)
    table = rows_of(tmp_path / "out").drop_columns(["embedding", "invalid_reason"])
    assert table.to_pydict() == frame.astype(object).where(frame.notna(), None).to_dict("list")
    unknown = frames.from_pandas(frame, npartitions=2).astype({"year": "category"})
    with pytest.raises(DataError, match=r"call ddf\.categorize\(\) first"):
        embed(unknown, tmp_path / "unknown", model=model_file, progress=False)
    frame.astype("category").to_parquet(tmp_path / "categories.parquet")
    frame.to_parquet(tmp_path / "plain.parquet")
    both = [tmp_path / "categories.parquet", tmp_path / "plain.parquet"]
    embed_files(both, tmp_path / "files", model=model_file, **SETTINGS)
    assert rows_of(tmp_path / "files")["smiles"].to_pylist() == ["CCO", "CCN", "CCO"] * 2
