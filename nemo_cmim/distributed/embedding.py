"""Embeds files or a Dask data frame into a folder of Parquet files, on this machine or on a Dask cluster.

Each part is one task. A part that is complete is not computed again, so a run that was killed can be resumed. The parts depend only on
the inputs, the settings and the versions of the packages; on machines with other processors, numbers may differ by rounding.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import check_integer
from ..cores import available_cores
from ..errors import ConfigError, DataError
from ..inference.embedding import EmbeddingModel
from ..inference.shipped import loading_of, reference_of, resolve
from ..prepare.cluster import Workers, start_workers
from ..steps import Steps, check_steps
from ..tables.columns import column_index, find_smiles_column, listed
from ..tables.layout import DETECT, ReadOptions
from ..tables.sources import source_state
from ..tables.vectors import STORED
from .folder import Folder
from .job import Embedding, Job, versions
from .library import LibraryManifest
from .parts import RESERVED, CutInput, Part, cut_input, embed_frame, embed_part, plain
from .run import Run

__all__ = ["PART_ROWS", "embed", "embed_files"]

PART_ROWS = 65_536
_LOCAL = re.compile(r"local(:(?P<processes>.*))?")
_CATEGORIES = re.compile(r"dictionary<values=(?P<values>.*), indices=")


def embed_files(
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    scheduler: str = "local",
    model: str | Path | EmbeddingModel | None = None,
    options: ReadOptions = DETECT,
    kind: str = "informative",
    layers: Sequence[int] | None = None,
    standardise: Steps = (),
    stored: str = "float32",
    on_invalid: str = "raise",
    batch_size: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
    part_rows: int = PART_ROWS,
    overwrite: bool = False,
    progress: bool | None = None,
) -> LibraryManifest:
    """Embeds the molecules of files into a folder of Parquet files.

    The columns of the files are kept, and these are added: `embedding`, a list; `invalid_reason`, why a row has no embedding; with int8
    also `embedding_scale`, by which the list is multiplied. `manifest.json` is written when all parts are complete. A call that was
    interrupted is resumed by an equal call.

    Args:
        files: Files, or URLs that fsspec supports, as `tables.rows.MoleculeTable` reads them. Several must have the same columns.
        output: Folder, or URL that fsspec supports.
        scheduler: Address of a `dask.distributed` scheduler, such as `tcp://node0:8786`, whose workers must see files, model and output
            under the same names; "local": one process for each core of this machine; or "local:N": N processes.
        model: See `nemo_cmim.load`; None: the default shipped model. Every worker loads it by its name or path.
        options: How the files are read.
        kind: "informative" or "mean".
        layers: See `CMIMModel.embed`.
        standardise: See `CMIMModel.embed`. The columns of the files are not changed.
        stored: Type of the numbers in the files: "float32", "float16" or "int8".
        on_invalid: "raise", or "nan" to write a row without embedding for an invalid molecule.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        device: See `nemo_cmim.load`.
        precision: See `nemo_cmim.load`; None: "fp32".
        engine: See `nemo_cmim.load`. On a cluster, every worker exports the engine when it is used for the first time, unless
            `model` is a folder written by `nemo-cmim export-onnx`.
        part_rows: Number of rows of a part.
        overwrite: Replace a library, or unfinished work, of other inputs or settings in the folder.
        progress: Show a progress bar on stderr; None: if stderr is a terminal.

    Raises:
        ConfigError: If an argument cannot be used, another process is writing to the folder, a worker has other versions, or a
            package is not installed.
        CheckpointError: If the model cannot be loaded, or a worker finds another one.
        DataError: If a file cannot be read, the folder contains other files or work on other inputs or settings, or it cannot be written.
        InvalidSmilesError: If a molecule is invalid and `on_invalid` is "raise". Complete parts are kept.
    """
    check_integer("part_rows", part_rows)
    sources = _sources(files)
    processes = _processes(scheduler)
    inputs = [{"file": name, "state": source_state(name)} for name in sources]
    settings = {"options": vars(options), "part_rows": part_rows}
    embedding = _embedding(resolve(model, device, precision, engine), device, kind, layers, standardise, stored, batch_size)
    run = Run(output, embedding, on_invalid, inputs, settings)

    def plan(job: Job, workers: Workers) -> list[Part]:
        done = job.entries("inputs")
        cut = functools.partial(cut_input, job=job, options=options, rows=part_rows)
        deque(workers.run(cut, [item for item in enumerate(sources) if item[0] not in done]), maxlen=0)
        found = [CutInput.from_json(content) for _, content in sorted(job.entries("inputs").items())]
        _check_columns(found)
        ranges = [
            (i, one._replace(cut=one.cut._replace(ranges=())), some) for i, one in enumerate(found) for some in one.cut.ranges
        ]
        return [Part(number, some.rows, i, one, some) for number, (i, one, some) in enumerate(ranges)]

    def compute(job: Job, workers: Workers, parts: Sequence[Part]) -> Iterator[Part]:
        return workers.run(functools.partial(embed_part, job=job), parts)

    connect = functools.partial(
        start_workers, processes or 1, None if processes else scheduler, what="Embedding on several processes"
    )
    return run.all(connect, plan, compute, overwrite=overwrite, progress=progress)


def embed(
    ddf: Any,
    output: str | Path,
    *,
    smiles: str | None = None,
    model: str | Path | EmbeddingModel | None = None,
    kind: str = "informative",
    layers: Sequence[int] | None = None,
    standardise: Steps = (),
    stored: str = "float32",
    on_invalid: str = "raise",
    batch_size: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> LibraryManifest:
    """Embeds the molecules of a Dask data frame into a folder of Parquet files, one for each partition.

    The partitions are computed by the workers of the active `dask.distributed.Client`; without one, one after the other in this process.
    See `embed_files` for the result, for the other arguments and for errors.

    Args:
        ddf: A `dask.dataframe.DataFrame`. Its index becomes a column if it has a name.
        output: Folder, or URL that fsspec supports.
        smiles: Column of SMILES; None: the only column that is called `smiles`, `canonical_smiles` or `isomeric_smiles`.
        model: See `embed_files`.
        kind: See `embed_files`.
        layers: See `embed_files`.
        standardise: See `embed_files`.
        stored: See `embed_files`.
        on_invalid: See `embed_files`.
        batch_size: See `embed_files`.
        device: See `embed_files`.
        precision: See `embed_files`.
        engine: See `embed_files`.
        overwrite: See `embed_files`.
        progress: See `embed_files`.
    """
    try:
        import pyarrow as pa
        from dask.base import tokenize
        from dask.delayed import delayed
    except ImportError as error:
        raise ConfigError(f"Embedding a Dask data frame requires {error.name}: pip install 'nemo_cmim[data]'.") from error
    if not hasattr(ddf, "to_delayed") or not hasattr(ddf, "_meta_nonempty"):
        raise ConfigError(
            f"ddf must be a Dask data frame, found {type(ddf).__name__}. Use `nemo_cmim.embed`, or dask.dataframe.from_pandas."
        )
    ddf = ddf.reset_index() if ddf.index.name is not None else ddf
    schema = pa.Schema.from_pandas(ddf._meta_nonempty, preserve_index=False)
    schema = plain(schema.empty_table()).schema
    found = find_smiles_column if smiles is None else functools.partial(column_index, column=smiles)
    column = schema.names[found("the data frame", schema.names)]
    _check_names("The data frame", schema.names)
    inputs = [{"file": "data frame", "state": [tokenize(ddf)]}]
    embedding = _embedding(resolve(model, device, precision, engine), device, kind, layers, standardise, stored, batch_size)
    run = Run(output, embedding, on_invalid, inputs, {"smiles": column})
    partitions = ddf.to_delayed()

    def plan(job: Job, workers: Workers) -> list[Part]:
        return [Part(number, 1) for number in range(len(partitions))]

    def compute(job: Job, workers: Workers, parts: Sequence[Part]) -> Iterator[Part]:
        task = functools.partial(embed_frame, job=job, schema=schema, smiles=column)
        return workers.compute(lambda some: [delayed(task, pure=False)(partitions[one.number], one) for one in some], parts)

    return run.all(_active_client, plan, compute, overwrite=overwrite, progress=progress)


def _sources(files: str | Path | Sequence[str | Path]) -> list[str]:
    """Absolute paths and URLs of the inputs."""
    given = [str(one) for one in ([files] if isinstance(files, (str, Path)) else files)]
    if not given:
        raise DataError("No file is given. Name at least one.")
    if "-" in given:
        raise DataError("Standard input cannot be read by several processes. Save it to a file first.")
    return [one if "://" in one else str(Path(one).absolute()) for one in given]


@contextmanager
def _active_client(folder: Folder) -> Iterator[Workers]:
    import distributed

    try:
        client = distributed.default_client()
    except ValueError:
        client = None
    yield Workers(client)


def _processes(scheduler: str) -> int | None:
    """Number of processes on this machine; None for the address of a scheduler."""
    match = _LOCAL.fullmatch(scheduler)
    if match is None:
        if "://" not in scheduler and ":" not in scheduler:
            raise ConfigError(f"scheduler must be an address such as tcp://node0:8786, local or local:N, found {scheduler!r}.")
        return None
    if match["processes"] is None:
        return available_cores()
    if not match["processes"].isdecimal() or not int(match["processes"]):
        raise ConfigError(f"scheduler={scheduler!r}: after local: stands a number of processes, at least 1.")
    return int(match["processes"])


def _embedding(
    model: EmbeddingModel,
    device: str | None,
    kind: str,
    layers: Sequence[int] | None,
    standardise: Steps,
    stored: str,
    batch_size: int | None,
) -> Embedding:
    if stored not in STORED:
        raise ConfigError(f"stored must be {', '.join(STORED)}, found {stored!r}.")
    check_integer("batch_size", batch_size, optional=True)
    name = reference_of(model)
    if name is None:
        raise ConfigError("The model has no name by which workers could load it. Save it, and pass the path of the file.")
    return Embedding(
        model=name,
        loading=(("device", device), *loading_of(model).items()),
        fingerprint=model.fingerprint(kind, layers),
        kind=kind,
        layers=None if layers is None else tuple(layers),
        standardise=check_steps(standardise),
        batch_size=batch_size,
        width=model.width(kind, layers),
        stored=stored,
        versions=versions(model.engine),
    )


def _check_columns(found: Sequence[CutInput]) -> None:
    first, kinds = found[0].cut, [_plain_name(kind) for kind in found[0].cut.types]
    _check_names(first.name, first.names)
    for cut, _ in found[1:]:
        if list(cut.names) != list(first.names):
            raise DataError(
                f"{cut.name} has the columns {listed(cut.names)}, but {first.name} has {listed(first.names)}. Embed the files one by one."
            )
        for name, kind, other in zip(cut.names, cut.types, kinds):
            if _plain_name(kind) != other:
                raise DataError(
                    f"{cut.name} holds {kind} in the column {name!r}, but {first.name} holds {other}. Embed the files one by one."
                )


def _plain_name(kind: str) -> str:
    """Name of the type that `parts.plain` gives a column."""
    match = _CATEGORIES.match(kind)
    kind = match["values"] if match else kind
    return "string" if kind in ("large_string", "string_view") else kind


def _check_names(source: str, names: Sequence[str]) -> None:
    for name in RESERVED:
        if name in names:
            raise DataError(f"{source} already has a column {name!r}, which is a column of the result. Rename the column.")
