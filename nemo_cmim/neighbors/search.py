"""The molecules of an embedded library that are nearest to given molecules."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ..arguments import check_integer
from ..errors import CheckpointError, InvalidSmilesError
from ..inference.embedding import EmbeddingModel
from ..inference.removed import fingerprint_hint
from ..inference.shipped import resolve
from ..molecules import shorten
from ..streaming.rows import DEFAULTS, Found, Streamed, StreamOptions, check_outputs, stream_rows
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import Block, MoleculeTable
from ..tables.sources import Source
from .exact import exact_hits
from .index import Index, files_of, has_index
from .library import EmbeddedLibrary

__all__ = ["find_neighbors", "neighbors_file"]

_QUERIES = 4096  # for which the library is read once by exact search


def find_neighbors(
    smiles: str | Sequence[str],
    library: str | Path,
    k: int = 10,
    *,
    model: str | Path | EmbeddingModel | None = None,
    device: str | None = None,
    exact: bool | None = None,
) -> pd.DataFrame:
    """Finds the molecules of an embedded library whose embeddings are nearest to those of given molecules.

    Args:
        smiles: A SMILES, or several.
        library: Folder or URL that `embed --scheduler` wrote, or Parquet file that `embed` wrote.
        k: Number of molecules to find for each SMILES.
        model: The model of the library; None: the one that the library names.
        device: See `nemo_cmim.load`.
        exact: Compare with all molecules of the library instead of using its index; None: if it has no index, or if all are asked for.

    Returns:
        k rows for each SMILES, the nearest first: `query`, the index of the SMILES; `smiles`; `rank`, from 1; `similarity`, the cosine of
        the two embeddings; and the columns of the library as `library_NAME`.

    Raises:
        InvalidSmilesError: If a SMILES is invalid.
        CheckpointError: If the model cannot be loaded, or is not the one of the library.
        DataError: If the library or its index cannot be read, or the index is of another library.
        ConfigError: If `k` is not positive, or usearch is not installed.
    """
    queries = [smiles] if isinstance(smiles, str) else list(smiles)
    search = _Search(library, k, model, device, exact=exact)
    vectors, reasons, *_ = search.model.embed_or_explain(queries, **search.embedding)
    if reasons:
        first = min(reasons)
        raise InvalidSmilesError(f"The query at index {first} cannot be used: {reasons[first]}. Correct or remove it.")
    rows = [(i, queries[i], *record) for i, records in enumerate(search.records(vectors)) for record in records]
    return pd.DataFrame(rows, columns=["query", "smiles", *search.columns])


def neighbors_file(
    query: str | Path,
    library: str | Path,
    target: str | Path,
    k: int = 10,
    *,
    model: str | Path | EmbeddingModel | None = None,
    device: str | None = None,
    exact: bool | None = None,
    read: ReadOptions = DETECT,
    options: StreamOptions = DEFAULTS,
) -> tuple[Streamed, bool]:
    """Writes the molecules of an embedded library that are nearest to each molecule of a file; see `find_neighbors`.

    The columns of the file are repeated, and `rank`, `similarity` and the columns of the library, as `library_NAME`, are added.

    Args:
        query: A file of molecules, as `MoleculeTable` reads it; or a SMILES, if there is no file of this name.
        library: See `find_neighbors`, also for the next arguments and for errors.
        target: The output, as `tables.row_writers.row_writer` writes it, but not .smi.
        k: Number of molecules to find for each molecule.
        model: The model.
        device: Its device.
        exact: Do not use the index.
        read: How the file is read.
        options: Common options.

    Returns:
        What was read and written, and whether the search was exact.
    """
    is_file = _is_file(str(query))
    options = replace(options, reads=(*options.reads, *files_of(library)))
    check_outputs(query if is_file else None, target, options, smi=False)
    search = _Search(library, k, model, device, exact=exact)
    if not is_file and (reason := search.model.invalid_reason(str(query), search.embedding["standardise"])):
        raise InvalidSmilesError(f"There is no file {shorten(str(query))}, and {reason}.")

    def compute(first: int, block: Block, report: Callable[[int, int], None]) -> list[Found]:
        vectors, reasons, *_ = search.model.embed_or_explain(block.smiles, progress=report, **search.embedding)
        good = np.array([i for i in range(len(block.smiles)) if i not in reasons], dtype=np.int64)
        records = dict(zip(good.tolist(), search.records(vectors[good])))
        return [
            Found(records.get(i, ()), block.problems.get(i, reasons.get(i, "")), is_valid=i not in reasons)
            for i in range(len(block.smiles))
        ]

    with MoleculeTable(query if is_file else _single(str(query)), read) as table:
        return stream_rows(table, target, search.columns, "library_smiles", compute, options, _QUERIES), search.is_exact


def _single(smiles: str) -> Source:
    """A SMILES as a file."""
    content = f"smiles\n{smiles}\n".encode()
    return Source("QUERY", io.BytesIO(content), len(content))


def _is_file(query: str) -> bool:
    if not query:
        raise InvalidSmilesError("The query is empty. Pass a SMILES or a file.")
    try:
        return query == "-" or "://" in query or Path(query).exists()
    except OSError:  # a SMILES can be longer than a name of a file may be
        return False


class _Search:
    """A library that is open for searching, with its model. See `find_neighbors` for arguments and errors.

    Attributes:
        model: The model.
        embedding: `kind`, `layers` and `standardise` of the embedding.
        columns: Names and types of the columns of a record.
        is_exact: Whether queries are compared with all molecules.
    """

    def __init__(
        self, library: str | Path, k: int, model: str | Path | EmbeddingModel | None, device: str | None, *, exact: bool | None
    ) -> None:
        check_integer("k", k)
        self._k, self._library = k, EmbeddedLibrary(library)
        found = self._library.embedding
        self.embedding = {name: found[name] for name in ("kind", "layers", "standardise")}
        try:
            named = {"model": model} if model is not None else {name: found[name] for name in ("model", "precision", "engine")}
            self.model: EmbeddingModel = resolve(**named, device=device)
        except CheckpointError as error:
            if model is not None:
                raise
            raise CheckpointError(f"{library} was embedded with the model {found['model']}: {error} Pass model=PATH.") from error
        if (fingerprint := self.model.fingerprint(found["kind"], found["layers"])) != found["fingerprint"]:
            raise CheckpointError(
                f"{library} was embedded with the model {found['model']}: the fingerprint of its embedding is {found['fingerprint'][:12]}, "
                f"but that of {self.model.name or 'this model'} is {fingerprint[:12]}. Pass the model of the library."
                f"{fingerprint_hint(found['fingerprint'])}"
            )
        self.is_exact = (not has_index(library) or k >= self._library.rows) if exact is None else exact
        self._index = None if self.is_exact else Index(self._library, library)
        types = {f"library_{field.name}": field.type for field in self._library.columns}
        self.columns: dict[str, pa.DataType] = {"rank": pa.int64(), "similarity": pa.float32(), **types}

    def records(self, vectors: NDArray[np.float32]) -> list[list[tuple[Any, ...]]]:
        """The nearest molecules of queries, float32 [Q, D]: for each query its records, the nearest first."""
        hits = self._index.hits(vectors, self._k) if self._index else exact_hits(self._library, vectors, self._k)
        query, place = np.nonzero(hits.rows >= 0)
        found: list[list[tuple[Any, ...]]] = [[] for _ in vectors]
        if len(query):
            rows = self._library.take(hits.rows[query, place])
            similarities = hits.similarities[query, place].clip(-1, 1).tolist()  # rounding can give a cosine above 1
            for i, rank, similarity, *row in zip(
                query.tolist(), (place + 1).tolist(), similarities, *(c.to_pylist() for c in rows.columns)
            ):
                found[i].append((rank, similarity, *row))
        return found
