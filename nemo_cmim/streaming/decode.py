"""Decodes the latents of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..errors import CheckpointError, InvalidLatentError
from ..generation import DecodingSettings
from ..inference import CMIMModel
from ..inference.capabilities import require_bottleneck, require_decoder
from ..inference.decoding import LARGEST, SOURCES, informative_rows
from ..inference.removed import fingerprint_hint
from ..inference.shipped import reference_of
from ..tables.columns import smiles_columns
from ..tables.latents import LatentBlock, LatentTable
from .rows import DEFAULTS, Found, Streamed, StreamOptions, check_outputs, stream_rows, unused

__all__ = ["decode_file"]

_GREEDY = DecodingSettings()


def decode_file(
    model: CMIMModel,
    source: str | Path,
    target: str | Path,
    *,
    settings: DecodingSettings = _GREEDY,
    options: StreamOptions = DEFAULTS,
) -> tuple[Streamed, str]:
    """Decodes each latent of a file and writes the SMILES with its other columns, and its `rank` if there are several for a latent.

    Args:
        model: The model.
        source: Latents, as `tables.latents.LatentTable` reads them.
        target: The output, as `tables.row_writers.row_writer` writes it.
        settings: How tokens are chosen; `n_best` SMILES are written for each latent. Draws depend on the seed and on the number of the row.
        options: Common options.

    Returns:
        What was written, and the name of the new column: `smiles`, or `decoded` if the input has a column of SMILES.

    Raises:
        DataError: See `LatentTable` and `stream_rows`.
        InvalidShapeError: If the latents have a different width than those of the model.
        InvalidLatentError: If they are embeddings of a different kind.
        CheckpointError: If they are embeddings of a different model, as a Parquet file of `embed` says.
        InvalidSmilesError: If a latent cannot be used, for example NaN, and `options.on_invalid` is "raise".
        ConfigError: If the model has no decoder or no bottleneck.
    """
    require_decoder(model.config, "decode")
    require_bottleneck(model.config, "decode", "call reconstruct with the SMILES")
    check_outputs(source, target, options)
    network = model.config.network
    with LatentTable(source, network.latents * network.hidden_size) as table:
        _check_embedding(model, table)
        column = "decoded" if smiles_columns(table.names) else "smiles"
        columns = {column: pa.string()} | ({"rank": pa.int32()} if settings.n_best > 1 else {})

        def compute(first: int, block: LatentBlock, report: Callable[[int, int], None]) -> list[Found]:
            problems = {**_problems(block.latents), **block.problems}
            if len(problems) == len(block.latents):
                return unused(problems, len(problems))
            latents = block.latents.copy()
            latents[list(problems)] = 0  # decoded too, so that the numbers of the other rows, on which draws depend, stay the same
            _check_not_informative(model, table, block.numbers, latents)
            texts = model.decode(latents, **vars(settings), first_index=first)
            return [_found(texts[i], problems.get(i), len(columns)) for i in range(len(texts))]

        done = stream_rows(table, target, columns, column, compute, options)
    return done, column


def _found(texts: list[str], problem: str | None, width: int) -> Found:
    if problem:
        return Found((), problem, is_valid=False)
    return Found([(text, rank)[:width] for rank, text in enumerate(texts, 1)])


def _check_embedding(model: CMIMModel, table: LatentTable) -> None:
    """Raises an error if the file says that its rows are of a different kind or model."""
    found = table.embedding
    if found is None:
        return
    if found["kind"] != "mean":
        raise InvalidLatentError(f'{table.name} holds embeddings with kind="{found["kind"]}", which cannot be decoded. {SOURCES}.')
    differs = found["fingerprint"] != model.fingerprint("mean")
    if differs and (found["precision"] == model.precision or found["model"] != reference_of(model)):
        raise CheckpointError(
            f"{table.name} was embedded with the model {found['model']}, and {model.name or 'this model'} cannot decode its latents. Pass "
            f"model={found['model']}.{fingerprint_hint(found['fingerprint'])}"
        )


def _check_not_informative(model: CMIMModel, table: LatentTable, numbers: Sequence[int], latents: NDArray[np.float32]) -> None:
    """Raises the error of `CMIMModel.decode` for informative embeddings, with the number that the first one has in the file."""
    found = informative_rows(torch.from_numpy(latents), model.network)
    if found:
        raise InvalidLatentError(
            f'{table.name}, {table.unit} {numbers[found[0]]}: this is an informative embedding (kind="informative"), which has the shape '
            f"of a latent but cannot be decoded. So are {len(found)} of the {len(latents)} rows that were read together. {SOURCES}."
        )


def _problems(latents: NDArray[np.float32]) -> dict[int, str]:
    """Why rows cannot be decoded, by their index."""
    largest = np.abs(latents).max(1)
    not_finite = "the latent contains NaN or infinity, as the row of an invalid molecule"
    problems = dict.fromkeys(np.flatnonzero(~np.isfinite(largest)), not_finite)
    for i in np.flatnonzero(np.isfinite(largest) & (largest > LARGEST)):
        problems[i] = f"the latent contains {largest[i]:.3g}, but latents are numbers of the order of 1"
    return {int(i): reason for i, reason in problems.items()}
