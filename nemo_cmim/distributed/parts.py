"""Tasks of workers: cut an input into parts, embed a part, and write it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from ..errors import DataError, InvalidSmilesError
from ..files import sha256_of
from ..tables.layout import NO_SMILES, Layout, ReadOptions
from ..tables.ranges import CutFile, RowRange, cut_file, read_range
from ..tables.rejects import RowProblem, Tally
from ..tables.row_writers import with_columns
from ..tables.rows import Block
from ..tables.sources import Source, source_state
from ..tables.vectors import EMBEDDING, SCALE, embedding_columns, metadata
from .job import Job, model_of
from .library import REASON

__all__ = ["RESERVED", "CutInput", "Part", "category_of", "cut_input", "drop_changed", "embed_frame", "embed_part", "plain"]

RESERVED = (EMBEDDING, SCALE, REASON)
"""Columns that are added to those of the input."""

_BLOCK_ROWS = 8192
_TEXTS = (pa.large_string(), pa.string_view())
_CATEGORIES = (
    (r"must be text|is empty|^(line )?(no SMILES|empty line)", "no SMILES"),
    ("contains white space|printable ASCII characters only", "forbidden character"),
    ("contains the token", "unknown token"),
    ("tokens, but this model accepts", "too many tokens"),
    ("contains atom maps", "atom maps"),
    ("is a query", "query"),
    ("could not be parsed", "not a molecule to RDKit"),
)


class CutInput(NamedTuple):
    """An input with its parts.

    Attributes:
        cut: The file.
        state: `source_state` of the file.
    """

    cut: CutFile
    state: list[Any]

    @classmethod
    def from_json(cls, content: Sequence[Any]) -> CutInput:
        """What JSON keeps of this object."""
        (name, place, layout, names, types, ranges), state = content
        return cls(CutFile(name, place, Layout(*layout), names, types, [RowRange(*one) for one in ranges]), state)


class Part(NamedTuple):
    """Rows that become one Parquet file.

    Attributes:
        number: Number of the part.
        rows: Number of rows, which may include empty lines at the end of a file.
        input: Number of the file; 0 for a data frame.
        source: The file, without its ranges; None for a partition of a data frame.
        range: The rows; None for a partition of a data frame.
    """

    number: int
    rows: int
    input: int = 0
    source: CutInput | None = None
    range: RowRange | None = None


def cut_input(item: tuple[int, str], job: Job, options: ReadOptions, rows: int) -> None:
    """Cuts an input into parts, and saves them."""
    number, name = item
    state = source_state(name)

    def copy(source: Source) -> str:
        place = job.entry("inputs", number, "copy")
        with job.folder.write(place) as path, path.open("wb") as file:
            for block in source.blocks():
                file.write(block)
        return job.folder / place

    job.folder.save(job.entry("inputs", number), CutInput(cut_file(name, options, rows, copy), state))


def drop_changed(item: tuple[int, Mapping[str, Any]], job: Job) -> None:
    """Removes the counts of a part whose file is missing or was changed since they were written, so that it is computed again."""
    number, entry = item
    try:
        is_same = "name" not in entry or job.folder.sha256(entry["name"]) == entry["sha256"]
    except FileNotFoundError:
        is_same = False
    if not is_same:
        job.folder.remove(job.entry("parts", number))


def embed_part(part: Part, job: Job) -> None:
    """Embeds a part of a file, and writes it."""
    assert part.source is not None and part.range is not None
    cut, state = part.source

    def check() -> None:
        if source_state(cut.name) != state:
            raise DataError(f"{cut.name} was changed while it was being embedded. Embed it again with overwrite=True.")

    check()

    def problem(block: Block, index: int, reason: str) -> RowProblem:
        cell = block.rows.column(cut.layout.smiles_column)[index].as_py()
        return RowProblem(cut.name, cut.unit, block.numbers[index], cell or "", reason)

    _write(part.number, read_range(cut, part.range, _BLOCK_ROWS), problem, job, check)


def embed_frame(frame: Any, part: Part, job: Job, schema: pa.Schema, smiles: str) -> None:
    """Embeds a partition of a data frame, a `pandas.DataFrame`, and writes it."""
    try:
        rows = pa.Table.from_pandas(frame, schema, preserve_index=False)
    except (pa.ArrowException, KeyError) as error:
        raise DataError(
            f"Partition {part.number} of the data frame does not have the columns of its metadata: {error}. If a column is categorical, "
            "call ddf.categorize() first."
        ) from error

    def blocks() -> Iterator[Block]:
        for begin in range(0, len(rows), _BLOCK_ROWS):
            some = rows.slice(begin, _BLOCK_ROWS)
            cells = some.column(smiles).to_pylist()
            problems = {i: NO_SMILES for i, cell in enumerate(cells) if not cell}
            yield Block(range(begin, begin + len(cells)), cells, problems, some)

    def problem(block: Block, index: int, reason: str) -> RowProblem:
        return RowProblem(f"partition {part.number}", "row", block.numbers[index], block.smiles[index] or "", reason)

    _write(part.number, blocks(), problem, job)


def _write(
    number: int,
    blocks: Iterable[Block],
    problem: Callable[[Block, int, str], RowProblem],
    job: Job,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Embeds rows, calls `check`, and writes a Parquet file and then its counts, which say that the file is complete."""
    embedding, model = job.embedding, model_of(job.embedding)
    options = {name: getattr(embedding, name) for name in ("kind", "layers", "standardise", "batch_size")}
    rows, invalid, tally = 0, Counter[str](), Tally()

    def tables() -> Iterator[pa.Table]:
        nonlocal rows
        for block in blocks:
            vectors, reasons, *_ = model.embed_or_explain(block.smiles, **options)
            reasons = {index: block.problems.get(index, reason) for index, reason in sorted(reasons.items())}
            problems = [problem(block, index, reason) for index, reason in reasons.items()]
            if problems and job.on_invalid == "raise":
                raise InvalidSmilesError(f'{problems[0]}. Pass on_invalid="nan" to keep such rows without an embedding.')
            rows += len(block.smiles)
            invalid.update(map(category_of, reasons.values()))
            tally.add(problems)
            yield _with_embeddings(plain(block.rows), vectors, reasons, job)

    written = tables()
    first = next(written, None)
    file: dict[str, Any] = {}
    if first is not None:
        with job.folder.write(job.part(number), job.check_is_current) as path:
            _write_parquet(path, first, written)
            check()
            file = {"name": job.part(number), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    counts = {"rows": rows, "invalid": dict(invalid), "examples": tally.examples}
    job.folder.save(job.entry("parts", number), {**file, **counts})


def _with_embeddings(rows: pa.Table, vectors: Any, reasons: Mapping[int, str], job: Job) -> pa.Table:
    added = {**embedding_columns(vectors, job.embedding.stored), REASON: pa.array(map(reasons.get, range(len(rows))), pa.string())}
    table = with_columns(rows, list(added), list(added.values()))
    return table.replace_schema_metadata(metadata(job.embedding.described()))


def _write_parquet(path: Path, first: pa.Table, others: Iterable[pa.Table]) -> None:
    """Writes tables, each as a row group. Numbers of float32 and float16 repeat too rarely for a dictionary; int8 needs it.

    Parquet stores int8 in 4 bytes, but the places in a dictionary of 256 numbers in one.
    """
    is_float = pa.types.is_floating(first.schema.field(EMBEDDING).type.value_type)
    with_dictionary = [name for name in first.column_names if name != EMBEDDING] if is_float else True
    with pyarrow.parquet.ParquetWriter(path, first.schema, use_dictionary=with_dictionary) as writer:
        for table in itertools.chain([first], others):
            writer.write_table(table)


def plain(rows: pa.Table) -> pa.Table:
    """The rows with one type of text, without categories and metadata: files with other types of text have the same columns."""
    return rows.cast(pa.schema([field.with_type(_plain_type(field.type)) for field in rows.schema])).replace_schema_metadata(None)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if kind in _TEXTS else kind


def category_of(reason: str) -> str:
    """What invalid rows are counted by: a reason without the SMILES and the place of the error in it."""
    return next((category for pattern, category in _CATEGORIES if re.search(pattern, reason)), "other")
