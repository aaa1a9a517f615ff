"""Samples new molecules, around each molecule of a file or from the density of all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..arguments import check_integer, check_seed
from ..generation import Filter, Seen
from ..inference import CMIMModel
from ..inference.batching import DECODED_MOLECULES
from ..inference.inputs import EXPLAIN
from ..inference.sampling import ATTEMPTS, next_round
from ..steps import Steps
from ..tables.layout import DETECT, ReadOptions
from ..tables.row_writers import row_writer
from ..tables.rows import Block, MoleculeTable
from .repeats import repeated_warnings_once
from .rows import DEFAULTS, Found, Streamed, StreamOptions, check_outputs, problems_of, stream_rows, unused

__all__ = ["sample_around", "sample_density"]

_COLUMNS = {"sample": pa.int32(), "generated": pa.string()}
SAMPLES_AT_ONCE = 1024


def sample_around(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    n: int = 1,
    *,
    seed: int | None = None,
    standardise: Steps = (),
    read: ReadOptions = DETECT,
    options: StreamOptions = DEFAULTS,
    **settings: Any,
) -> Streamed:
    """Writes n molecules around each molecule of a file: its columns, `sample` (from 1 to n) and `generated`.

    Args:
        model: The model.
        source: Molecules, as `MoleculeTable` reads them.
        target: The output, as `tables.row_writers.row_writer` writes it.
        n: Number of molecules around each.
        seed: Seed; None: different in each call. The samples around a molecule depend on the seed and on the number of its row.
        standardise: See `CMIMModel.embed`.
        read: How the source is read.
        options: Common options.
        settings: Further arguments of `CMIMModel.sample`.

    Raises:
        InvalidSmilesError: If a molecule cannot be used and `options.on_invalid` is "raise".
        DataError: See `stream_rows`.
        ConfigError: See `CMIMModel.sample`.
    """
    check_integer("n", n)
    check_seed(seed)
    check_outputs(source, target, options)

    def compute(first: int, block: Block, report: Callable[[int, int], None]) -> list[Found]:
        problems = problems_of(model, block, standardise)
        if len(problems) == len(block.smiles) or (problems and options.on_invalid == "raise"):
            return unused(problems, len(block.smiles))
        samples = model.sample(
            n, smiles=block.smiles, seed=seed, on_invalid=EXPLAIN, standardise=standardise, first_index=first, **settings
        )
        return [_found(texts, problems.get(i)) for i, texts in enumerate(samples)]

    with MoleculeTable(source, read) as table:
        # so that a block has as many molecules to decode as one batch
        return stream_rows(table, target, _COLUMNS, "generated", compute, options, max(1, DECODED_MOLECULES // n))


def sample_density(
    model: CMIMModel,
    target: str | Path,
    n: int = 1,
    *,
    valid_only: bool = False,
    unique: bool = False,
    must_contain: str | Sequence[str] = (),
    attempts: int = ATTEMPTS,
    seed: int | None = None,
    options: StreamOptions = DEFAULTS,
    **settings: Any,
) -> int:
    """Writes n molecules from the density of all: `sample` (from 1 to n) and `generated`.

    With `unique=True`, no two of them are the same molecule. See `sample_around` and `CMIMModel.sample` for the arguments.

    Returns:
        The number of rows written, at most n. There are fewer, with a warning, if not enough of `attempts * n` samples fulfil all
        conditions.

    Raises:
        DataError: See `outputs.check_file`.
        ConfigError: See `CMIMModel.sample`.
    """
    check_integer("n", n)
    check_integer("attempts", attempts)
    check_seed(seed)
    accept, seen = Filter(valid_only, unique, must_contain), Seen()
    check_outputs(None, target, options)
    most = n if accept.keeps_all else n * attempts
    with repeated_warnings_once(), row_writer(Path(target), "generated", "sample") as writer:
        while count := min(SAMPLES_AT_ONCE, next_round(n, seen.kept, seen.drawn, most)):
            before = seen.kept
            drawn = model.sample(count, seed=seed, first_index=seen.drawn, **settings)
            texts = [text for text in drawn if seen.kept < n and accept.accepts(text, seen)]
            numbers = range(before + 1, seen.kept + 1)
            writer.append(pa.table([pa.array(numbers, pa.int32()), pa.array(texts, pa.string())], names=list(_COLUMNS)))
            if options.progress:
                options.progress(seen.kept, max(seen.kept / n, seen.drawn / most))
    if seen.kept < n:
        warnings.warn(
            f"Only {seen.kept:,} of {n:,} molecules met the conditions: {seen}. Allow more than attempts={attempts}, or drop a condition.",
            stacklevel=2,
        )
    return seen.kept - writer.left_out


def _found(texts: Sequence[str] | None, problem: str | None) -> Found:
    if texts is None or problem:
        return Found((), problem or "", is_valid=False)
    return Found([*enumerate(texts, 1)], "" if texts else "no sample fulfils all conditions")
