"""Embeds files of any size in constant memory: reads a block of rows, embeds and writes it, then reads the next."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, DataError, InvalidSmilesError
from ..outputs import check_file, write_file
from ..tables.columns import listed
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import Block, MoleculeTable
from ..tables.writers import check_output, embedding_writer
from .model import CMIMModel
from .unfinished import Unfinished

__all__ = ["EmbeddedFile", "embed_file"]

ROWS_AT_ONCE = 8192
_EXAMPLES = 3  # of invalid rows

Progress = Callable[[int, "float | None"], None]


class EmbeddedFile(NamedTuple):
    """What `embed_file` did.

    Attributes:
        rows: Number of rows read, which is the number of rows written.
        invalid: Number of rows without a usable molecule; their embeddings are NaN.
        examples: Place and reason of the first of them.
    """

    rows: int
    invalid: int
    examples: list[str]


class _Invalid(NamedTuple):
    """A row without a usable molecule."""

    source: str
    unit: str
    number: int
    smiles: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}: {self.reason}"


def embed_file(
    model: CMIMModel,
    sources: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    options: ReadOptions = DETECT,
    kind: str = "informative",
    layers: Sequence[int] | None = None,
    standardise: Sequence[str] = (),
    on_invalid: str = "raise",
    rejects: str | Path | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> EmbeddedFile:
    """Adds an embedding to each row of a file.

    Args:
        model: The model.
        sources: Files, URLs, or `-`, as `MoleculeTable` reads them. Several must have the same columns; their rows follow each other.
        target: A file as `tables.writers.embedding_writer` writes it, or `-`, CSV on standard output.
        options: How the sources are read.
        kind: "informative" or "mean".
        layers: See `CMIMModel.embed`.
        standardise: See `CMIMModel.embed`. The columns of the sources are not changed.
        on_invalid: "raise", or "nan" to write a row of NaN for an invalid molecule.
        rejects: CSV file to write with source, row number, SMILES and reason of each invalid molecule.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        overwrite: Replace `target` and `rejects` if they exist.
        resume: Keep finished blocks in the folder `.NAME.unfinished` next to the target until it is complete, and begin with those
            that an interrupted call left there.
        progress: Called repeatedly with the number of rows done, and the fraction of the sources that these rows are, None if unknown.

    Raises:
        ConfigError: If the model does not have this kind or these layers, or if an option cannot be used.
        DataError: If a source or its SMILES column is missing, a source is empty or damaged, or the target cannot be written.
        InvalidSmilesError: If a molecule is invalid and `on_invalid` is "raise". The message contains the row.
    """
    inputs = [sources] if isinstance(sources, (str, Path)) else list(sources)
    target = Path(target)
    if on_invalid not in ("raise", "nan"):
        raise ConfigError(f'on_invalid must be "raise" or "nan", found {on_invalid!r}.')
    _check_outputs(inputs, target, rejects, overwrite)
    unfinished = None
    if resume:
        settings = {"options": vars(options), "kind": kind, "layers": layers, "standardise": standardise, "rows": ROWS_AT_ONCE}
        unfinished = Unfinished(target, inputs, {**settings, "fingerprint": model.fingerprint(kind, layers)})
    rows = total = number = 0
    examples: list[str] = []
    with embedding_writer(target) as append, _rejects_file(rejects) as reject:
        for table, block, before, after in _blocks(inputs, options):
            report = _reporter(progress, rows, len(block.smiles), before, after)
            saved = unfinished.load(number) if unfinished else None
            vectors, reasons = saved or model.embed_or_explain(
                block.smiles, kind, layers=layers, standardise=standardise, batch_size=batch_size, progress=report
            )
            reasons = {index: block.problems.get(index, reason) for index, reason in reasons.items()}
            invalid = [_invalid(table, block, index, reason) for index, reason in sorted(reasons.items())]
            if invalid and on_invalid == "raise":
                raise InvalidSmilesError(f'{invalid[0]}. Pass on_invalid="nan" to keep a NaN row.')
            if unfinished and saved is None:
                unfinished.save(number, vectors, reasons)
            append(block.rows, vectors)
            reject(invalid)
            examples += map(str, invalid[: _EXAMPLES - len(examples)])
            total += len(invalid)
            rows, number = rows + len(block.smiles), number + 1
            report(1, 1)
        if not rows:
            raise DataError(f"{' and '.join(map(str, inputs))} holds no rows.")
    if unfinished:
        unfinished.remove()
    return EmbeddedFile(rows, total, examples)


def _check_outputs(inputs: Sequence[str | Path], target: Path, rejects: str | Path | None, overwrite: bool) -> None:
    check_output(target, overwrite)
    outputs = [target, Path(rejects)] if rejects is not None else [target]
    if rejects is not None:
        check_file(rejects, overwrite=overwrite)
    for number, output in enumerate(outputs):
        others = (*map(Path, inputs), *outputs[:number])
        if output.exists() and any(other.exists() and output.samefile(other) for other in others):
            raise DataError(f"{output} is an input or the other output. Name a different file.")


def _blocks(
    inputs: Sequence[str | Path], options: ReadOptions
) -> Iterator[tuple[MoleculeTable, Block, float | None, float | None]]:
    """The blocks of all inputs, with the fractions of the inputs that have been read before and after."""
    names: list[str] | None = None
    for place, source in enumerate(inputs):
        with MoleculeTable(source, options) as table:
            if names is not None and table.names != names:
                raise DataError(
                    f"{table.name} has the columns {listed(table.names)}, but {inputs[0]} has {listed(names)}. Embed the files one by one."
                )
            names = table.names
            before: float | None = place / len(inputs)
            for block in table.blocks(ROWS_AT_ONCE):
                fraction = table.fraction_read()
                after = None if fraction is None else (place + fraction) / len(inputs)
                yield table, block, before if after is not None else None, after
                before = after


def _reporter(
    progress: Progress | None, rows: int, size: int, before: float | None, after: float | None
) -> Callable[[int, int], None]:
    """A function that reports how much of a block is done, as rows and as a fraction of the inputs."""

    def report(done: int, of: int) -> None:
        if progress:
            fraction = None if before is None or after is None else before + (after - before) * done / of
            progress(rows + size * done // of, fraction)

    return report


def _invalid(table: MoleculeTable, block: Block, index: int, reason: str) -> _Invalid:
    cell = block.rows.column(table.smiles_column)[index].as_py()
    return _Invalid(table.name, table.unit, block.numbers[index], cell or "", reason)


@contextmanager
def _rejects_file(path: str | Path | None) -> Iterator[Callable[[Sequence[_Invalid]], None]]:
    """Yields a function that writes rows to a CSV file, or that does nothing without a path."""
    if path is None:
        yield lambda _: None
        return
    with write_file(path, overwrite=True) as staging, staging.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "row", "smiles", "reason"))
        yield lambda rows: writer.writerows((row.source, row.number, row.smiles, row.reason) for row in rows)
