"""Searches for better molecules, from each molecule of a file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..arguments import check_integer, check_seed
from ..errors import ConfigError
from ..inference import CMIMModel
from ..inference.batching import DECODED_MOLECULES
from ..inference.inputs import EXPLAIN
from ..optimization import OBJECTIVES, PICTURES, SearchResult, check_suffix
from ..outputs import write_file
from ..steps import Steps
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import Block, MoleculeTable
from .rows import DEFAULTS, Found, Streamed, StreamOptions, check_outputs, problems_of, stream_rows, unused

__all__ = ["optimize_file", "parse_objective"]

_COLUMNS = {
    "seed": pa.string(),
    "seed_score": pa.float64(),
    "generated": pa.string(),
    "score": pa.float64(),
    "similarity": pa.float64(),
    "step": pa.int64(),
}


def parse_objective(text: str) -> str | dict[str, float]:
    """The objective that `CMIMModel.optimize` takes: `QED`, or names with weights, `QED:1,plogP:-0.1`.

    Raises:
        ConfigError: If a name is unknown or given twice, or if a weight is missing or is not a number.
    """
    if ":" not in text and "," not in text:
        _check_name(text, text.strip())
        return text.strip()
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition(":"))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not math.isfinite(weight) or name in weights:
            raise ConfigError(
                f"objective={text!r}: {part.strip()!r} is not a different name with a weight. Write one name, such as QED, or names with "
                "weights, such as QED:1,plogP:-0.1."
            )
        _check_name(text, name)
        weights[name] = weight
    return weights


def _check_name(text: str, name: str) -> None:
    if name not in OBJECTIVES:
        raise ConfigError(f"objective={text!r}: {name!r} is not the name of a score. The names are {', '.join(OBJECTIVES)}.")


def optimize_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    objective: str = "QED",
    *,
    population: int = 30,
    seed: int | None = None,
    plot: str | Path | None = None,
    grid: str | Path | None = None,
    standardise: Steps = (),
    read: ReadOptions = DETECT,
    options: StreamOptions = DEFAULTS,
    **settings: Any,
) -> tuple[Streamed, bool]:
    """Writes better molecules for each molecule of a file, the best first.

    The columns are those of the file, `seed` (the molecule of the file), `seed_score`, `generated`, `score`, `similarity` (to the seed) and
    `step` (that found it). See `CMIMModel.optimize`.

    Args:
        model: The model.
        source: Molecules, as `MoleculeTable` reads them.
        target: The output, as `tables.row_writers.row_writer` writes it.
        objective: See `parse_objective`.
        population: Molecules of a step of the search.
        seed: Seed. The result depends on the file, the seed and the other settings.
        plot: Picture to write: scores over evaluations for the first molecule for which something was found.
        grid: Picture to write: the best molecules for the same molecule.
        standardise: See `CMIMModel.embed`.
        read: How the source is read.
        options: Common options.
        settings: Further arguments of `CMIMModel.optimize`.

    Returns:
        What was written, and whether the pictures were: they are not if nothing was found for any molecule.

    Raises:
        InvalidSmilesError: If a molecule cannot be used and `options.on_invalid` is "raise".
        DataError: See `stream_rows`; or if a picture cannot be written.
        ConfigError: See `CMIMModel.optimize`.
    """
    what = parse_objective(objective)
    check_integer("population", population, 2)
    check_seed(seed)
    pictures = {name: Path(path) for name, path in (("plot", plot), ("grid", grid)) if path is not None}
    for name, path in pictures.items():
        check_suffix(path, PICTURES, name)
    check_outputs(source, target, options, [*pictures.values()])
    chosen: list[Any] = []  # the result that is drawn

    def compute(first: int, block: Block, report: Callable[[int, int], None]) -> list[Found]:
        problems = problems_of(model, block, standardise)
        if len(problems) == len(block.smiles) or (problems and options.on_invalid == "raise"):
            return unused(problems, len(block.smiles))
        results = model.optimize(
            block.smiles, what, population=population, seed=seed, on_invalid=EXPLAIN, standardise=standardise, first_index=first,
            progress=report, **settings,
        )  # fmt: skip
        chosen.extend([result for result in results if result and result.molecules and pictures and not chosen][:1])
        return [_found(result, problems.get(i)) for i, result in enumerate(results)]

    with MoleculeTable(source, read) as table:
        done = stream_rows(table, target, _COLUMNS, "generated", compute, options, max(1, DECODED_MOLECULES // population))
    for name, path in pictures.items() if chosen else ():
        with _picture(path) as temporary:
            getattr(chosen[0], name)(temporary)
    return done, bool(chosen)


def _found(result: SearchResult | None, problem: str | None) -> Found:
    """The rows of a `SearchResult`; a row with only the seed if nothing was found."""
    if result is None or problem:
        return Found((), problem or "", is_valid=False)
    seed = (result.seed, result.seed_score)
    if not result.molecules:
        return Found([(*seed, None, None, None, None)], result.explain())
    return Found([(*seed, one.smiles, one.score, one.similarity, one.step) for one in result.molecules])


@contextmanager
def _picture(path: Path) -> Iterator[Path]:
    """Yields a temporary path with the suffix of the picture, from which its format is recognised."""
    with write_file(path, overwrite=True, staging=path.with_name(f".{uuid.uuid4().hex}{path.suffix}")) as temporary:
        yield temporary
