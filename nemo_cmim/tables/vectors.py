"""Embeddings as columns of Arrow tables: lists of float32, float16 or int8, and what they are in the metadata of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["EMBEDDING", "SCALE", "STORED", "embedding_columns", "embeddings_of", "metadata", "metadata_of", "scale_columns"]

EMBEDDING = "embedding"
SCALE = "embedding_scale"  # of int8: the embedding is the list times this number
STORED = ("float32", "float16", "int8")
"""Types of the numbers of a list."""

_KEY = b"nemo_cmim"
_INT8 = 127


def embedding_columns(vectors: NDArray[np.float32], stored: str = "float32") -> dict[str, pa.Array]:
    """Columns that hold embeddings: `EMBEDDING`, lists of the same length, and for int8 also `SCALE`.

    float16 and int8 round the numbers: float16 to 11 significant bits, int8 to 1/127 of the largest number of the vector.

    Args:
        vectors: float32 [N, D]; a row of NaN becomes null.
        stored: One of `STORED`.

    Raises:
        DataError: If a number is too large for float16.
    """
    missing = np.asarray(np.isnan(vectors).any(axis=1))
    found = np.where(missing[:, None], np.float32(0), vectors)
    columns = {}
    if stored == "int8":
        scale = np.abs(found).max(axis=1, initial=0) / np.float32(_INT8)
        numbers = np.rint(found / np.where(scale == 0, 1, scale)[:, None]).clip(-_INT8, _INT8).astype(np.int8)
        columns[SCALE] = pa.array(scale, mask=missing)
    elif stored == "float16":
        with np.errstate(over="ignore"):
            numbers = found.astype(np.float16)
        if not np.isfinite(numbers).all():
            raise DataError(
                f"An embedding has the number {np.abs(found).max():g}, which float16 cannot hold. Store float32 or int8."
            )
    else:
        numbers = found
    lists = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), vectors.shape[1], mask=pa.array(missing))
    return {EMBEDDING: lists, **columns}


def scale_columns(schema: pa.Schema) -> list[str]:
    """`SCALE` if the embeddings are multiplied by it, else nothing: a column of this name beside float numbers is one of the user."""
    kind = schema.field(EMBEDDING).type
    is_int8 = hasattr(kind, "value_type") and pa.types.is_int8(kind.value_type)
    return [SCALE] if is_int8 and SCALE in schema.names else []


def embeddings_of(rows: pa.Table) -> NDArray[np.float32]:
    """The embeddings of rows that have the columns of `embedding_columns`, float32 [N, D]; null becomes a row of NaN."""
    width = rows.schema.field(EMBEDDING).type.list_size
    vectors = np.full((rows.num_rows, width), np.nan, np.float32)
    first = 0
    for lists in rows.column(EMBEDDING).chunks:
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        vectors[first : first + len(lists)][present] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        first += len(lists)
    if scale_columns(rows.schema):
        vectors *= rows.column(SCALE).to_numpy()[:, None].astype(np.float32)
    return vectors


def metadata(content: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Metadata of the schema of a Parquet file, which `metadata_of` reads."""
    return {_KEY: json.dumps(content, sort_keys=True).encode()}


def metadata_of(schema: pa.Schema) -> dict[str, Any] | None:
    """The content of `metadata` in the schema of a Parquet file; None if it has none."""
    content = (schema.metadata or {}).get(_KEY)
    found: dict[str, Any] | None = None if content is None else json.loads(content)
    return found
