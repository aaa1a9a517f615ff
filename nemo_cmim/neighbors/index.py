"""An index of a library for approximate search: graphs (HNSW) of usearch, in files beside the library that are memory-mapped.

The graph of all rows would have to fit into memory while it is built. So there is one for each 5 million rows, and a search asks all.

    LIBRARY/index.json, LIBRARY/index-DIGEST-00000.usearch, ...        of a folder
    NAME.parquet.index.json, NAME.parquet.index-DIGEST-00000.usearch   of a file
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_integer
from ..errors import ConfigError, DataError
from ..files import atomic_write, lock
from .exact import Hits, exact_hits, nearest, no_hits, normalised
from .library import EmbeddedLibrary

__all__ = ["BuiltIndex", "Index", "build_index", "files_of", "has_index"]

SHARD_ROWS = 5_000_000
_FORMAT = "nemo_cmim index 1"
_STORED = {"float16": "f16", "int8": "i8"}
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 16, 128, 128
_QUERIES, _K = 200, 10  # of the measured recall
_TIE = 1e-6  # similarities of equal vectors differ by rounding


class BuiltIndex(NamedTuple):
    """What `build_index` built.

    Attributes:
        vectors: Number of vectors.
        bytes: Size of the files.
        recall: Fraction of the 10 nearest other rows by exact search that the index finds, averaged over `queries` rows.
        queries: Number of rows for which the recall was measured.
    """

    vectors: int
    bytes: int
    recall: float
    queries: int


def build_index(
    library: str | Path,
    *,
    stored: str = "float16",
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
    progress: Callable[[int, float | None], None] | None = None,
) -> BuiltIndex:
    """Builds an index of an embedded library, and measures its recall against exact search.

    Graphs that an interrupted call has completed are kept.

    Args:
        library: Folder that `embed --scheduler` wrote, or Parquet file that `embed` wrote. It must not be a URL.
        stored: Type of the numbers in the index: "float16", or "int8", which is smaller and less exact.
        shard_rows: Number of rows of one graph. While it is built, it is in memory.
        overwrite: Replace an existing index.
        progress: Called with the number of rows done, and the fraction of all rows that these are.

    Raises:
        ConfigError: If usearch is not installed, an argument cannot be used, or another process is building the index.
        DataError: If the library cannot be read, has no vectors, or already has an index.
    """
    if stored not in _STORED:
        raise ConfigError(f"stored must be {' or '.join(_STORED)}, found {stored!r}.")
    check_integer("shard_rows", shard_rows)
    usearch, place, opened = _usearch(), _place(library), EmbeddedLibrary(library)
    with lock(_file(place, "lock"), f"The index of {library}", "Wait for that run, or stop it."):
        if _file(place, "json").exists():
            if not overwrite:
                raise DataError(f"{library} already has an index. Pass overwrite=True to replace it.")
            _file(place, "json").unlink()
            _remove_graphs(place)
        starts = range(0, opened.rows, shard_rows)
        name = f"{opened.digest[:8]}-{_STORED[stored]}-{shard_rows}"
        shards: list[dict[str, Any]] = []
        for number, start in enumerate(starts):
            path = _file(place, f"{name}-{number:05d}.usearch")
            graph = _restored(usearch, path)  # of an interrupted call
            if graph is None:
                graph = _graph(usearch, opened, start, min(start + shard_rows, opened.rows), stored, progress)
                with atomic_write(path) as staging:
                    _save(graph, staging, path)
            shards.append({"name": path.name, "vectors": len(graph), "bytes": path.stat().st_size})
        if not any(shard["vectors"] for shard in shards):
            _remove_graphs(place)
            raise DataError(f"{library} has no row with an embedding, so there is nothing to search. Embed other molecules.")
        content = {"format": _FORMAT, "library": opened.digest, "fingerprint": opened.embedding["fingerprint"], "stored": stored}
        with atomic_write(_file(place, "json")) as staging:
            staging.write_text(json.dumps({**content, "shards": shards}, indent=1) + "\n", encoding="utf-8")
        _remove_graphs(place, {shard["name"] for shard in shards})
    recall, queries = _recall(opened, Index(opened, library))
    vectors, size = (sum(shard[name] for shard in shards) for name in ("vectors", "bytes"))
    return BuiltIndex(vectors, size, recall, queries)


def _graph(
    usearch: Any, library: EmbeddedLibrary, start: int, stop: int, stored: str, progress: Callable[[int, float | None], None] | None
) -> Any:
    graph = usearch.Index(
        ndim=library.embedding["width"],
        metric="cos",
        dtype=_STORED[stored],
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
    )
    for block in library.blocks(start, stop):
        graph.add(block.rows.astype(np.uint64), normalised(block.vectors))
        if progress:
            progress(int(block.rows[-1]) + 1, (int(block.rows[-1]) + 1) / library.rows)
    return graph


def _remove_graphs(place: Path, kept: Collection[str] = ()) -> None:
    for path in place.parent.glob(f"{place.name}-*.usearch"):
        if path.name not in kept:
            path.unlink()


def _restored(usearch: Any, path: Path) -> Any:
    """A graph whose file is memory-mapped; None if there is no such file, or it is damaged."""
    try:
        return usearch.Index.restore(str(path), view=True)
    except (RuntimeError, ValueError):  # what usearch raises
        return None


def _save(graph: Any, staging: Path, path: Path) -> None:
    try:
        graph.save(str(staging))
    except (RuntimeError, ValueError) as error:  # what usearch raises, for example if the disk is full
        raise DataError(
            f"{path} cannot be written: {error}. Complete graphs are kept. Fix the problem and rerun to resume."
        ) from error


def _recall(library: EmbeddedLibrary, index: Index) -> tuple[float, int]:
    """The recall for rows that are spread over the library, and their number.

    A found row counts if it is as near as one of those of exact search: a library may have several rows with one vector.
    """
    rows = np.unique(np.linspace(0, library.rows - 1, _QUERIES).astype(np.int64))
    vectors = library.vectors(rows)
    good = ~np.isnan(vectors).any(axis=1)
    rows, vectors = rows[good], vectors[good]
    found, exact = index.hits(vectors, _K + 1), exact_hits(library, vectors, _K + 1)
    others = normalised(library.vectors(np.maximum(found.rows, 0).ravel())).reshape(*found.rows.shape, -1)
    similarities = np.einsum("qd,qkd->qk", normalised(vectors), others)
    recalls = []
    for i, row in enumerate(rows):
        wanted = exact.similarities[i][(exact.rows[i] != row) & (exact.rows[i] >= 0)][:_K]
        if len(wanted):
            is_other = (found.rows[i] != row) & (found.rows[i] >= 0)
            recalls.append(min(np.sum(similarities[i][is_other] >= wanted[-1] - _TIE), len(wanted)) / len(wanted))
    return float(np.mean(recalls)) if recalls else 1.0, len(rows)


class Index:
    """An index that is open for searching; its files are memory-mapped.

    Args:
        library: The library.
        where: How the user names it.

    Raises:
        ConfigError: If usearch is not installed.
        DataError: If there is no index, or it is damaged, or of another library.
    """

    def __init__(self, library: EmbeddedLibrary, where: str | Path) -> None:
        usearch, place = _usearch(" Or pass exact=True to search without it."), _place(where)
        again = f"Build it again: nemo-cmim index {where} --overwrite."
        try:
            content = json.loads(_file(place, "json").read_bytes())
            if content["format"] != _FORMAT:
                raise DataError(f"The index of {where} is of the format {content['format']!r}. {again}")
            if (content["library"], content["fingerprint"]) != (library.digest, library.embedding["fingerprint"]):
                raise DataError(f"The index beside {where} is of another library: {where} was written after it. {again}")
            self._graphs = [self._opened(usearch, place.with_name(shard["name"]), shard) for shard in content["shards"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, (DataError, ConfigError)):
                raise
            raise DataError(f"The index of {where} cannot be read: {error}. {again}") from error

    @staticmethod
    def _opened(usearch: Any, path: Path, shard: dict[str, Any]) -> Any:
        if (found := path.stat().st_size) != shard["bytes"]:
            raise OSError(f"{path} has {found:,} bytes, not {shard['bytes']:,}")
        graph = _restored(usearch, path)
        if graph is None:
            raise OSError(f"{path} is damaged")
        return graph

    def hits(self, queries: NDArray[np.float32], k: int) -> Hits:
        """Finds about the k nearest rows of queries, float32 [Q, D]. Similarities have the precision of the numbers in the index."""
        best, unit = no_hits(len(queries), k), normalised(queries)
        for graph in self._graphs:
            count = min(k, len(graph))
            if count and len(unit):
                graph.expansion_search = max(_EXPANSION_SEARCH, 2 * k)
                best = nearest(best, *_batch(graph.search(unit, count), len(unit), count))
        return best


def _batch(found: Any, queries: int, count: int) -> Hits:
    """What usearch found, which may be fewer rows than asked for; for one query it has one dimension."""
    hits = no_hits(queries, count)
    counts = found.counts if queries > 1 else [len(found.keys)]
    for i, (keys, distances) in enumerate(zip(*(np.atleast_2d(one) for one in (found.keys, found.distances)))):
        hits.rows[i, : counts[i]] = keys[: counts[i]]
        hits.similarities[i, : counts[i]] = 1 - distances[: counts[i]]
    return hits


def has_index(where: str | Path) -> bool:
    """Whether there is an index beside a library."""
    return "://" not in str(where) and _file(_place(where), "json").is_file()


def files_of(library: str | Path) -> list[str | Path]:
    """A library, which is a folder, a file or a URL, and the files of its index, if they are beside it."""
    if "://" in str(library):
        return [library]
    place = _place(library)
    return [library, *sorted(place.parent.glob(f"{glob.escape(place.name)}*"))]


def _place(library: str | Path) -> Path:
    """The beginning of the paths of an index."""
    if "://" in str(library):
        raise ConfigError(f"The index of {library} would be memory-mapped, which a URL cannot be. Copy the library to a disk.")
    path = Path(library)
    return path / "index" if path.is_dir() else path.with_name(f"{path.name}.index")


def _file(place: Path, ending: str) -> Path:
    return place.with_name(f"{place.name}{'-' if ending.endswith('.usearch') else '.'}{ending}")


def _usearch(hint: str = "") -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise ConfigError(
            f"An index requires {error.name}, which is not installed: pip install 'nemo_cmim[search]'.{hint}"
        ) from error
    return usearch.index
