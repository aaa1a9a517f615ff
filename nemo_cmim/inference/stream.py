"""Embeds files of any size in constant memory: reads a block of rows, embeds and writes it, then reads the next."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError, InvalidSmilesError
from ..outputs import check_file
from ..steps import Steps, check_steps
from ..tables.columns import listed
from ..tables.layout import DETECT, ReadOptions
from ..tables.progress import Progress, reporter
from ..tables.rejects import RowProblem, Tally, rejects_file
from ..tables.rows import Block, MoleculeTable
from ..tables.writers import check_output, embedding_writer
from .embedding import EmbeddingModel, Explained
from .engines import INT8
from .processes import Workers, process_count
from .shipped import loading_of, reference_of
from .unfinished import Unfinished, staging_of

__all__ = ["EmbeddedFile", "embed_file"]

ROWS_AT_ONCE = 8192
_Read = tuple[MoleculeTable, Block, float | None, float | None]
_TEXT = {pa.string(), pa.large_string(), pa.string_view()}


class EmbeddedFile(NamedTuple):
    """What `embed_file` did.

    Attributes:
        rows: Number of rows read, which is the number of rows written.
        invalid: Number of rows without a usable molecule; their embeddings are NaN.
        examples: Place and reason of the first of them.
        changed: Number of rows whose molecule was changed by `standardise`.
    """

    rows: int
    invalid: int
    examples: list[str]
    changed: int = 0


def embed_file(
    model: EmbeddingModel,
    sources: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    options: ReadOptions = DETECT,
    kind: str = "informative",
    layers: Sequence[int] | None = None,
    standardise: Steps = (),
    on_invalid: str = "raise",
    rejects: str | Path | None = None,
    changes: str | Path | None = None,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    wording: Callable[[str], str] = str,
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
        changes: CSV file to write with source, row number, SMILES and standardised SMILES of each molecule that `standardise` changed.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        n_jobs: Number of processes; -1: one on each core. With the device "cuda", they use the GPUs in turn. The rows do not depend on it.
        overwrite: Replace `target`, `rejects` and `changes` if they exist.
        resume: Keep finished blocks in the folder `.NAME.unfinished` next to the target until it is complete, and begin with those
            that an interrupted call left there.
        progress: Called repeatedly with the number of rows done, and the fraction of the sources that these rows are, None if unknown.
        wording: Changes the reasons why rows are invalid, for an interface whose options have other names than arguments in Python.

    Raises:
        ConfigError: If the model does not have this kind or these layers, or if an option cannot be used.
        DataError: If a source or its SMILES column is missing, a source is empty or damaged, or the target cannot be written.
        InvalidSmilesError: If a molecule is invalid and `on_invalid` is "raise". The message contains the row.
    """
    inputs = [sources] if isinstance(sources, (str, Path)) else list(sources)
    target = Path(target)
    if on_invalid not in ("raise", "nan"):
        raise ConfigError(f'on_invalid must be "raise" or "nan", found {on_invalid!r}.')
    steps, processes = check_steps(standardise), process_count(n_jobs)
    _check_outputs([*inputs, *filter(None, [model.name])], target, rejects, changes, steps, overwrite=overwrite)
    rows, changed, tally = 0, 0, Tally()
    with ExitStack() as stack:
        settings = {"options": vars(options), "kind": kind, "layers": layers, "standardise": steps, "rows": ROWS_AT_ONCE}
        settings |= {"fingerprint": model.fingerprint(kind, layers), "batch_size": batch_size if model.engine == INT8 else None}
        unfinished = stack.enter_context(Unfinished(target, inputs, settings).opened()) if resume else None
        embedding: dict[str, Any] = {"kind": kind, "layers": layers, "standardise": steps, "batch_size": batch_size}
        append = stack.enter_context(embedding_writer(target, staging_of(unfinished, "output", target), _about(model, embedding)))
        reject = stack.enter_context(rejects_file(rejects, staging_of(unfinished, "rejects", rejects)))
        list_change = stack.enter_context(rejects_file(changes, staging_of(unfinished, "changes", changes), "standardised"))
        workers = stack.enter_context(Workers.opened(model, processes)) if processes > 1 else None
        results = _embedded(_blocks(inputs, options), embedding, unfinished, workers)
        for number, ((table, block, before, after), saved, computed) in enumerate(results):
            report = reporter(progress, rows, len(block.smiles), before, after)
            vectors, reasons, standard = saved or computed or model.embed_or_explain(block.smiles, progress=report, **embedding)
            reasons = {index: wording(block.problems.get(index, reason)) for index, reason in reasons.items()}
            invalid = [_problem(table, block, index, reason) for index, reason in sorted(reasons.items())]
            if invalid and on_invalid == "raise":
                raise InvalidSmilesError(f'{invalid[0]}. Pass on_invalid="nan" to keep a NaN row.')
            if unfinished and saved is None:
                unfinished.save(number, _packed(Explained(vectors, reasons, standard)))
            append(block.rows, vectors)
            reject(invalid)
            tally.add(invalid)
            list_change([_problem(table, block, *change) for change in sorted(standard.items())])
            rows, changed = rows + len(block.smiles), changed + len(standard)
            report(1, 1)
        if not rows:
            raise DataError(f"{' and '.join(map(str, inputs))} holds no rows.")
    return EmbeddedFile(rows, tally.total, tally.examples, changed)


def _check_outputs(
    inputs: Sequence[str | Path],
    target: Path,
    rejects: str | Path | None,
    changes: str | Path | None,
    steps: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    check_output(target, overwrite=overwrite, others=inputs)
    used = [*inputs, target]
    for path in (rejects, changes):
        if path is not None:
            check_file(path, overwrite=overwrite, others=used)
            used.append(path)
    if changes is not None and not steps:
        raise ConfigError(
            f"changes={str(changes)!r} lists the molecules that standardise changes, but no step is named. Pass "
            'standardise="desalt,neutralise", or leave changes out.'
        )


def _about(model: EmbeddingModel, embedding: Mapping[str, Any]) -> dict[str, Any]:
    """How rows are embedded, for readers of the output."""
    how = {name: embedding[name] for name in ("kind", "layers", "standardise")}
    of_model = {"fingerprint": model.fingerprint(how["kind"], how["layers"]), "width": model.width(how["kind"], how["layers"])}
    return {"model": reference_of(model), **loading_of(model), **how, **of_model, "stored": "float32"}


def _embedded(
    blocks: Iterator[_Read], embedding: dict[str, Any], unfinished: Unfinished | None, workers: Workers | None
) -> Iterator[tuple[_Read, Explained | None, Explained | None]]:
    """Each block, with its result if that was saved before, or if `workers` computed it."""

    def tasks(workers: Workers) -> Iterator[tuple[Any, Future[Any] | None]]:
        for read, saved in found:
            yield (read, saved), None if saved else workers.submit("embed_or_explain", read[1].smiles, **embedding)

    found = ((read, _unpacked(unfinished.load(number)) if unfinished else None) for number, read in enumerate(blocks))
    if workers:
        yield from ((*item, computed) for item, computed in workers.in_order(tasks(workers)))
    else:
        yield from ((*item, None) for item in found)


def _packed(found: Explained) -> bytes:
    with io.BytesIO() as file:
        np.save(file, found.vectors)
        file.write(json.dumps([found.invalid, found.changed]).encode())
        return file.getvalue()


def _unpacked(saved: bytes | None) -> Explained | None:
    """What was packed; None if it is damaged."""
    try:
        with io.BytesIO(saved or b"") as file:
            vectors = np.load(file, allow_pickle=False)
            invalid, changed = ({int(i): text for i, text in texts.items()} for texts in json.loads(file.read()))
            return Explained(vectors, invalid, changed)
    except (EOFError, ValueError, AttributeError):  # the last: of an earlier version
        return None


def _blocks(inputs: Sequence[str | Path], options: ReadOptions) -> Iterator[_Read]:
    """The blocks of all inputs, with the fractions of the inputs that have been read before and after."""
    names: list[str] | None = None
    schema: pa.Schema | None = None
    for place, source in enumerate(inputs):
        with MoleculeTable(source, options) as table:
            if names is not None and table.names != names:
                raise DataError(
                    f"{table.name} has the columns {listed(table.names)}, but {inputs[0]} has {listed(names)}. Embed the files one by one."
                )
            names = table.names
            before: float | None = place / len(inputs)
            for block in table.blocks(ROWS_AT_ONCE):
                schema = schema or pa.schema([*zip(names, block.rows.schema.types)])
                for name, kind, first in zip(names, block.rows.schema.types, schema.types):
                    if kind != first and not {kind, first} <= _TEXT:
                        raise DataError(
                            f"{table.name} holds {kind} in the column {name!r}, but {inputs[0]} holds {first}. Embed the files one by one."
                        )
                block = block._replace(rows=block.rows.cast(schema))
                fraction = table.fraction_read()
                after = None if fraction is None else (place + fraction) / len(inputs)
                yield table, block, before if after is not None else None, after
                before = after


def _problem(table: MoleculeTable, block: Block, index: int, reason: str) -> RowProblem:
    cell = block.rows.column(table.smiles_column)[index].as_py()
    return RowProblem(table.name, table.unit, block.numbers[index], cell or "", reason)
